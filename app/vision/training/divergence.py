"""Tells a run that has come apart from one that is merely noisy."""

from __future__ import annotations

import math

import torch

from app.vision.networks.network import Network, learned_state
from app.vision.training.checkpoint import Position

# fastai ends a learning-rate search at four times the best smoothed loss. A run must bear more than a search: it may
# stumble while the rate is at its peak and find its feet when the rate falls.
TIMES_CHANCE = 10.0
STEPS = 20  # in a row
DECAY = 0.9  # of the running means: they remember some ten steps


def watch_loss(position: Position, loss: float, right: float, classes: int) -> None:
    """Take in one step: its mean loss in nats and the share of its samples (0..1) that were right."""
    if position.running_right < 0:
        position.running_loss, position.running_right = loss, right
    position.running_loss += (1 - DECAY) * (loss - position.running_loss)
    position.running_right += (1 - DECAY) * (right - position.running_right)
    position.lost_steps = position.lost_steps + 1 if _lost(position, classes) else 0


def exploded(position: Position) -> bool:
    """Whether the loss has been hopeless for so many steps that the run is to end."""
    return position.lost_steps >= STEPS


def _lost(position: Position, classes: int) -> bool:
    """Whether the loss is far above that of knowing nothing, ln C, while little more than nothing is known.

    The second half matters: a linear head at an excessive rate is a perceptron, whose logits, and with them the loss of
    its few mistakes, are huge, and which may classify well all the same.
    """
    chance = 1 / classes
    return position.running_loss > TIMES_CHANCE * math.log(classes) and position.running_right < (1 + chance) / 2


def is_finite(network: Network) -> bool:
    """Whether every weight and statistic that training changes is a number.

    One that is not does not always show in the loss: batch norm with an infinite variance answers with zeros.
    """
    floats = [tensor for tensor in learned_state(network).values() if tensor.is_floating_point()]
    return math.isfinite(float(torch.nn.utils.get_total_norm(floats, math.inf)))  # one answer to wait for
