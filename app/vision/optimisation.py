"""The optimiser, its learning rate at each step, and the order of the samples in each epoch."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from app.vision.config import OptimizerName, Schedule

WARMUP = 0.05  # share of the steps in which the learning rate climbs to its peak
SHUFFLE = 1 << 32  # keeps the stream of random numbers that shuffles apart from the one that augments


def make_optimizer(model: nn.Module, name: OptimizerName, weight_decay: float) -> torch.optim.Optimizer:
    """An optimiser of the parameters that learn; vectors (biases, norm weights) are spared the weight decay."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in learning if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in learning if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)
    return torch.optim.Adam(groups, lr=0.0) if name == "adam" else torch.optim.AdamW(groups, lr=0.0)


def learning_rate(peak: float, schedule: Schedule, step: int, steps: int) -> float:
    """The rate of `step` (0-based) of `steps`: linear warm-up, then the schedule.

    "cosine" falls to zero (Loshchilov & Hutter 2017, arXiv:1608.03983); "step" divides by ten after half and after
    three quarters of the run.
    """
    warmup = math.ceil(steps * WARMUP)
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    if schedule == "step":
        return peak * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    return peak


def batches(seed: int, epoch: int, samples: int, batch_size: int) -> list[NDArray[np.int64]]:
    """The rows of each batch of an epoch, shuffled; sizes differ by one at most.

    Batch norm cannot learn from a single sample, so a batch holds at least two wherever there are two, even if
    `batch_size` is 1 or leaves a remainder of one.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch + SHUFFLE], dtype=np.uint64)))
    count = max(1, min(math.ceil(samples / batch_size), samples // 2))
    return np.array_split(generator.permutation(samples), count)


def seed_step(seed: int, epoch: int, step: int) -> None:
    """Seed torch for one step (dropout draws from it), so that a resumed run draws what an unbroken one would."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, step]).generate_state(1, np.uint64)[0]))
