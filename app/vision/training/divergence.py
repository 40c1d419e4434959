"""Tells a run that has come apart from one that is merely noisy, whatever its task."""

from __future__ import annotations

import math

import torch

from app.vision.networks.network import Network, learned_state
from app.vision.training.checkpoint import Position

# fastai ends a learning-rate search at the first loss that is hopeless. A run must bear more than a search: it may
# stumble while the rate is at its peak and find its feet when the rate falls.
STEPS = 20  # in a row


def exploded(position: Position) -> bool:
    """Return whether the loss has been hopeless for so many steps that the run is to end."""
    return position.lost_steps >= STEPS


def is_finite(network: Network) -> bool:
    """Return whether every weight and statistic that training changes is a number.

    One that is not does not always show in the loss: batch norm with an infinite variance answers with zeros.
    """
    floats = [tensor for tensor in learned_state(network).values() if tensor.is_floating_point()]
    return math.isfinite(float(torch.nn.utils.get_total_norm(floats, math.inf)))  # one answer to wait for
