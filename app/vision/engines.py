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
