"""Engines: what computes a model's class scores. All take the same prepared images; some are faster than others."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.vision.engine_names import REFERENCE
from app.vision.network import Network
from app.vision.preprocessing import Preprocessing


class Engine(Protocol):
    """Computes class scores; safe in several threads, one call at a time."""

    name: str

    @property
    def nbytes(self) -> int:
        """Bytes that its weights occupy in memory."""

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [N, C] from prepared images uint8 [N, S, S, 3], N at least 1."""


class TorchEager:
    """The reference: the network as it was evaluated, in float32."""

    name = str(REFERENCE)

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self.network = network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self._preprocessing = preprocessing

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        device = next(self.network.parameters()).device
        with torch.inference_mode(), full_precision(device):
            # A copy where the array is a view or read-only (a memory map): torch wants neither.
            pixels = torch.from_numpy(np.array(batch)).to(device)
            scores: NDArray[np.float32] = self.network(self._preprocessing.normalize(pixels)).float().cpu().numpy()
        return scores


class TorchBfloat16:
    """A trunk in bfloat16 whose batch norms are folded into its convolutions; the head stays float32."""

    name = "torch-bf16"

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        fold_batch_norms(self.network.trunk)
        self.network.trunk.to(torch.bfloat16).to(memory_format=torch.channels_last)
        self._preprocessing = preprocessing

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            pixels = self._preprocessing.normalize(torch.from_numpy(np.array(batch)).to(device))
            scores: NDArray[np.float32] = self.network(pixels.bfloat16()).float().cpu().numpy()
        return scores


class TorchCompiled:
    """The float32 network with folded batch norms, compiled with `torch.compile`: for one image, and for any number.

    It is compiled here, which takes a minute or so. Raises what the compiler raises.
    """

    name = "torch-compile"

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        fold_batch_norms(self.network.trunk)
        self.network.to(memory_format=torch.channels_last)
        self._preprocessing = preprocessing
        self._compiled = torch.compile(self.network)
        side = preprocessing.crop
        with torch._inductor.config.patch(compile_threads=1):  # no pool of processes beside the service
            for count in (1, 2, 4, 8, 16, 32):  # the compiler may want another version from some number on
                self.logits(np.zeros((count, side, side, 3), dtype=np.uint8))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = self._preprocessing.normalize(torch.from_numpy(np.array(batch)))
            if len(batch) > 1:
                torch._dynamo.mark_dynamic(pixels, 0)
            scores: NDArray[np.float32] = self._compiled(pixels).numpy()
        return scores


class TorchHalf:
    """A trunk of 16 bits a number with folded batch norms on an accelerator, in batches of fixed sizes.

    Batches are filled up with empty images to the next of `SIZES`: cuDNN looks for its fastest algorithms once for each
    of them, here, and not while callers wait.
    """

    SIZES = (1, 2, 4, 8, 16, 32)

    def __init__(
        self, name: str, network: Network, preprocessing: Preprocessing, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.name = name
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        fold_batch_norms(self.network.trunk)
        self.network.trunk.to(dtype)
        self.network.to(device).to(memory_format=torch.channels_last)
        self._preprocessing = preprocessing
        self._dtype = dtype
        self._device = device
        side = preprocessing.crop
        for size in self.SIZES:
            self.logits(np.zeros((size, side, side, 3), dtype=np.uint8))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def logits(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate(
            [self._fixed(batch[start : start + self.SIZES[-1]]) for start in range(0, len(batch), self.SIZES[-1])]
        )

    def _fixed(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        size = next(size for size in self.SIZES if size >= len(batch))
        filled = np.zeros((size, *batch.shape[1:]), dtype=np.uint8)
        filled[: len(batch)] = batch
        # PyTorch keeps the algorithms that it found by the tensors' shapes; searching is a setting of the process.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            pixels = self._preprocessing.normalize(torch.from_numpy(filled).to(self._device))
            scores: NDArray[np.float32] = self.network(pixels.to(self._dtype)).float().cpu().numpy()
        return scores[: len(batch)]


def fold_batch_norms(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it, in place; `module` must be in evaluation mode.

    A pair is a convolution followed by a batch norm among one module's children, as torchvision's networks have them.
    """
    children = list(module.named_children())
    norms = {name: child for name, child in children if isinstance(child, nn.BatchNorm2d)}
    for (name, child), (after, _) in itertools.pairwise(children):
        if isinstance(child, nn.Conv2d) and after in norms:
            setattr(module, name, fuse_conv_bn_eval(child, norms[after]))
            setattr(module, after, nn.Identity())
    for _, child in children:
        fold_batch_norms(child)


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Plain float32 convolutions: TF32, a GPU's default, would let answers vary by more than is promised."""
    if device.type != "cuda":
        yield
        return
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
