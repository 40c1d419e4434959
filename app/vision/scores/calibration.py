"""Measures how far probabilities can be believed, and fits the temperature that makes them more so."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

BINS = 15
SPREAD = 0.5  # standard deviation that log(temperature) is thought to have before any image is looked at


def fit_temperature(logits: Tensor, labels: NDArray[np.int64]) -> float:
    """Return the T for which softmax(logits / T) is likeliest, of logits [N, C] on the CPU and labels [N] in 0..C-1.

    Guo et al. 2017, arXiv:1706.04599, with a weak log-normal prior around one: a dozen images that are all right would
    otherwise be taken for a proof of certainty. With hundreds of images it makes no difference.
    """
    scores, target = logits.detach().double(), torch.from_numpy(labels)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        likelihood = functional.cross_entropy(scores * torch.exp(-log_temperature), target, reduction="sum")
        total = (likelihood + (log_temperature / SPREAD) ** 2 / 2) / len(labels)
        total.backward()  # type: ignore[no-untyped-call]
        return total.item()

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp())


def expected_calibration_error(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean gap between confidence and accuracy over 15 bins, weighed by their images; 0 is perfect."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(labels))
