"""Count a network's multiplications, and those that these cores can do in a second; both in 1e9."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bench.rounds import clock


def multiplications(network: nn.Module, forward: Callable[[], object]) -> float:
    """Return those of all convolutions and linear layers in one call of `forward`, which passes an image through."""
    counted = 0

    def count(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += output.numel() * layer.weight[0].numel()

    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    forward()
    for hook in hooks:
        hook.remove()
    return counted / 1e9


def matrix_multiplications(dtype: torch.dtype = torch.float32, side: int = 2048) -> float:
    """Return those a second of a product of square matrices, the best of ten: about all that these cores can do."""
    first, second = torch.rand(side, side).to(dtype), torch.rand(side, side).to(dtype)
    return side**3 / 1e9 / min(clock(lambda: first @ second) for _ in range(10))
