"""Engines: what computes a model's class scores and features. All take the same prepared images; some are faster."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.vision.engines.names import REFERENCE
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network

LARGE = 32  # images; no engine is given more at a time, so that memory does not grow with the call


class Outputs(NamedTuple):
    """What an engine computes of N images, float32: class scores [N, C], and the features [N, F] behind them."""

    logits: NDArray[np.float32]
    features: NDArray[np.float32]

    @classmethod
    def of(cls, scored: tuple[Tensor, Tensor]) -> Outputs:
        """From what `Network.scored` gives, wherever it lies."""
        logits, features = scored
        return cls(logits.float().cpu().numpy(), features.float().cpu().numpy())

    @classmethod
    def joined(cls, parts: Sequence[Outputs]) -> Outputs:
        """Those of several batches as if they had been one."""
        return cls(np.concatenate([one.logits for one in parts]), np.concatenate([one.features for one in parts]))


class Engine(Protocol):
    """Computes class scores; safe in several threads, one call at a time."""

    name: str
    batch: int  # images that it computes at a time with the least effort; `LARGE` until that has been measured

    @property
    def nbytes(self) -> int:
        """Bytes that its weights occupy in memory."""

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        """From prepared images uint8 [N, S, S, 3], N at least 1."""


class TorchEager:
    """The reference: the network as it was evaluated, in float32."""

    name = str(REFERENCE)

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self.network = network.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.batch = LARGE
        self._preprocessing = preprocessing

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        device = next(self.network.parameters()).device
        with torch.inference_mode(), full_precision(device):
            # A copy where the array is a view or read-only (a memory map): torch wants neither.
            pixels = torch.from_numpy(np.array(batch)).to(device)
            return Outputs.of(self.network.scored(self._preprocessing.normalize(pixels)))


class TorchBfloat16:
    """A trunk in bfloat16 whose batch norms are folded into its convolutions; the head stays float32."""

    name = "torch-bf16"

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        fold_batch_norms(self.network.trunk)
        self.network.trunk.to(torch.bfloat16).to(memory_format=torch.channels_last)
        self.batch = LARGE
        self._preprocessing = preprocessing

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            pixels = self._preprocessing.normalize(torch.from_numpy(np.array(batch)).to(device))
            return Outputs.of(self.network.scored(pixels.bfloat16()))


class TorchCompiled:
    """The float32 network with folded batch norms, compiled with `torch.compile`: for one image, and for any number.

    It is compiled here, which takes a minute or so. Raises what the compiler raises.
    """

    name = "torch-compile"

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        fold_batch_norms(self.network.trunk)
        self.network.to(memory_format=torch.channels_last)
        self.batch = LARGE
        self._preprocessing = preprocessing
        self._compiled = torch.compile(self.network.scored)
        side = preprocessing.crop
        with torch._inductor.config.patch(compile_threads=1):  # no pool of processes beside the service
            for count in (1, 2, 4, 8, 16, 32):  # the compiler may want another version from some number on
                self.outputs(np.zeros((count, side, side, 3), dtype=np.uint8))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            pixels = self._preprocessing.normalize(torch.from_numpy(np.array(batch)))
            if len(batch) > 1:
                torch._dynamo.mark_dynamic(pixels, 0)
            return Outputs.of(self._compiled(pixels))


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
        self.batch = LARGE
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        fold_batch_norms(self.network.trunk)
        self.network.trunk.to(dtype)
        self.network.to(device).to(memory_format=torch.channels_last)
        self._preprocessing = preprocessing
        self._dtype = dtype
        self._device = device
        side = preprocessing.crop
        for size in self.SIZES:
            self.outputs(np.zeros((size, side, side, 3), dtype=np.uint8))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        largest = self.SIZES[-1]
        parts = [self._fixed(batch[start : start + largest]) for start in range(0, len(batch), largest)]
        return Outputs.joined(parts)

    def _fixed(self, batch: NDArray[np.uint8]) -> Outputs:
        size = next(size for size in self.SIZES if size >= len(batch))
        filled = np.zeros((size, *batch.shape[1:]), dtype=np.uint8)
        filled[: len(batch)] = batch
        # PyTorch keeps the algorithms that it found by the tensors' shapes; searching is a setting of the process.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            pixels = self._preprocessing.normalize(torch.from_numpy(filled).to(self._device))
            logits, features = self.network.scored(pixels.to(self._dtype))
            return Outputs.of((logits[: len(batch)], features[: len(batch)]))


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
