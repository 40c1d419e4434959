"""Makes the optimiser of what learns, each stage at its own rate, and applies gradients."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn

from app.vision.networks.network import Network
from app.vision.settings.config import OptimizerName


def make_optimizer(
    network: Network, name: OptimizerName, weight_decay: float, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Return an optimiser of the parameters that learn; vectors (biases, norm weights) are spared the weight decay.

    A stage learns at `layer_decay` times the rate of the one above it, the head being uppermost (Howard & Ruder 2018,
    arXiv:1801.06146); each group's `rate_share` says how that multiplies up.
    """
    depths = {stage: depth for depth, stage in enumerate(network.learning, start=1)}
    matrices: defaultdict[float, list[nn.Parameter]] = defaultdict(list)
    vectors: defaultdict[float, list[nn.Parameter]] = defaultdict(list)
    for parameter_name, parameter in network.named_parameters():
        part, stage, _ = parameter_name.split(".", 2)
        if part == "head" or stage in depths:
            share = layer_decay ** (depths[stage] if part == "trunk" else 0)
            (matrices if parameter.ndim > 1 else vectors)[share].append(parameter)
    groups = [
        {"params": parameters, "weight_decay": decay, "rate_share": share}
        for kind, decay in ((matrices, weight_decay), (vectors, 0.0))
        for share, parameters in kind.items()
    ]
    fused = True if next(network.parameters()).is_cuda else None  # one kernel, where a GPU would be told of dozens
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, fused=fused)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(groups, lr=0.0, fused=fused)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let every group learn at its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_share"]


def apply_gradients(
    optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None, *, clip_norm: float = 0.0, l1: float = 0.0
) -> None:
    """Follow the gradients that lie in the parameters, shortened to `clip_norm` and shrunk by `l1` where these are set.

    With a `scaler` they are scaled; if one of them overflowed, nothing moves.
    """
    if clip_norm:
        if scaler is not None:
            scaler.unscale_(optimizer)
        clip_gradients(optimizer, clip_norm)
    if scaler is None:
        optimizer.step()
    else:
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < before:
            return
    if l1:
        shrink(optimizer, l1)


def clip_gradients(optimizer: torch.optim.Optimizer, longest: float) -> None:
    """Shorten the gradient of all parameters taken together to the Euclidean length `longest`."""
    learning = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(learning, longest)


@torch.no_grad()
def shrink(optimizer: torch.optim.Optimizer, l1: float) -> None:
    """Take `l1` times the rate off every weight that learns, down to exactly zero; vectors are spared.

    The proximal step of an L1 penalty (ISTA; Daubechies et al. 2004, arXiv:math/0307152), decoupled from the
    optimiser as AdamW decouples L2: a subgradient would make weights small, but none of them zero.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.ndim > 1 and parameter.grad is not None:
                parameter.copy_(parameter.sign() * (parameter.abs() - group["lr"] * l1).clamp_(min=0.0))
