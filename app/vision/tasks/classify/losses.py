"""Makes the loss that training minimises: cross-entropy, smoothed, weighted by class, or focused on what is wrong."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from app.vision.data.resident import sent
from app.vision.images.mixing import Mix
from app.vision.settings.config import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(config: TrainConfig, labels: NDArray[np.int64], classes: int, device: torch.device) -> Loss:
    """Return a function of logits [n, C] and labels [n] that gives the mean loss in nats.

    `labels` are all training labels. With `imbalance` "weights" a sample counts N / (C · n of its class): one on
    average, and every class the same in sum. With `focal_gamma` it counts (1 - p of its class) ** gamma (Lin et al.
    2017, arXiv:1708.02002).
    """
    weights = class_weights(labels, classes).to(device) if config.imbalance == "weights" else None

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        if weights is None and not config.focal_gamma:
            return functional.cross_entropy(logits, target, label_smoothing=config.label_smoothing)
        each = functional.cross_entropy(logits, target, label_smoothing=config.label_smoothing, reduction="none")
        if weights is not None:
            each = each * weights[target]
        if config.focal_gamma:
            likelihood = logits.softmax(dim=1).gather(1, target[:, None]).squeeze(1)
            each = each * (1 - likelihood).clamp(min=1e-6) ** config.focal_gamma
        return each.mean()

    return loss


def class_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    """Return float32 [classes], inverse to how often a class occurs; their mean over the samples is one."""
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy(len(labels) / (classes * np.maximum(counts, 1))).float()


def batch_loss(loss: Loss, logits: Tensor, labels: NDArray[np.int64], how: Mix | None) -> tuple[Tensor, Tensor]:
    """Return the mean loss of a batch and how many samples are right, both scalars on the device.

    A sample that was mixed has two labels, in their shares; it is right where it is classified as what it shows most.
    """
    target = sent(labels, logits.device)
    if how is None:
        return loss(logits, target), (logits.argmax(dim=1) == target).sum()
    own, other = target[: len(logits)], target[torch.from_numpy(how.partner).to(target.device)]
    mixed = how.share * loss(logits, own) + (1 - how.share) * loss(logits, other)
    most = own if how.share >= 0.5 else other
    return mixed, (logits.argmax(dim=1) == most).sum()
