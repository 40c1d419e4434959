"""Engines compute a model's outputs. All take the same prepared images; some are faster."""

from __future__ import annotations

import copy
import itertools
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.vision.engines.names import REFERENCE
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.networks.outputs import Outputs, as_arrays, joined
from app.vision.runtime.memory import CHUNK
from app.vision.runtime.precision import full_precision

LARGE = CHUNK  # images; no engine is given more at a time


class Engine(Protocol):
    """Computes a network's outputs; safe in several threads, one call at a time."""

    name: str
    batch: int  # images that it computes at a time with the least effort; `LARGE` until that has been measured

    @property
    def nbytes(self) -> int:
        """Return the bytes that its weights occupy in memory."""

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        """Return the outputs of prepared images uint8 [N, H, W, 3], N at least 1."""


class TorchEager:
    """Computes the reference: the network as it was evaluated, in float32."""

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
            return as_arrays(self.network.outputs(self._preprocessing.normalize(pixels)))


class TorchBfloat16:
    """Computes a trunk in bfloat16 whose batch norms are folded into its convolutions; the head stays float32."""

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
            return as_arrays(self.network.outputs(pixels.bfloat16()))


class TorchCompiled:
    """Computes the float32 network with folded batch norms, compiled: for one image, and for any number.

    It is compiled here, which takes a minute or so. Raises what the compiler raises.
    """

    name = "torch-compile"

    def __init__(self, network: Network, preprocessing: Preprocessing) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        fold_batch_norms(self.network.trunk)
        self.network.to(memory_format=torch.channels_last)
        self.batch = LARGE
        self._preprocessing = preprocessing
        self._compiled = torch.compile(self.network.outputs)
        with torch._inductor.config.patch(compile_threads=1):  # no pool of processes beside the service
            for count in (1, 2, 4, 8, 16, 32):  # the compiler may want another version from some number on
                self.outputs(np.zeros((count, *preprocessing.input_shape), dtype=np.uint8))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            pixels = self._preprocessing.normalize(torch.from_numpy(np.array(batch)))
            if len(batch) > 1:
                torch._dynamo.mark_dynamic(pixels, 0)
            return as_arrays(self._compiled(pixels))


class TorchHalf:
    """Computes a trunk of 16 bits a number with folded batch norms on an accelerator, in batches of fixed sizes.

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
        for size in self.SIZES:
            self.outputs(np.zeros((size, *preprocessing.input_shape), dtype=np.uint8))

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.network.state_dict().values())

    def outputs(self, batch: NDArray[np.uint8]) -> Outputs:
        largest = self.SIZES[-1]
        parts = [self._fixed(batch[start : start + largest]) for start in range(0, len(batch), largest)]
        return joined(parts)

    def _fixed(self, batch: NDArray[np.uint8]) -> Outputs:
        size = next(size for size in self.SIZES if size >= len(batch))
        filled = np.zeros((size, *batch.shape[1:]), dtype=np.uint8)
        filled[: len(batch)] = batch
        # PyTorch keeps the algorithms that it found by the tensors' shapes; searching is a setting of the process.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, benchmark=True):
            pixels = self._preprocessing.normalize(torch.from_numpy(filled).to(self._device))
            found = self.network.outputs(pixels.to(self._dtype))
            return as_arrays({name: tensor[: len(batch)] for name, tensor in found.items()})


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
