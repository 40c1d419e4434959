"""Tells a loss without hope by what knowing nothing would cost."""

from __future__ import annotations

import math

# fastai ends a learning-rate search at four times the best smoothed loss; a training must bear more than a search.
TIMES_CHANCE = 10.0
DECAY = 0.9  # of the running means: they remember some ten steps


def hopeless(watched: dict[str, float], loss: float, right: float, classes: int) -> str | None:
    """Take in a step, its mean loss in nats and the share of its samples (0..1) that were right.

    Returns what to tell of a loss far above that of knowing nothing, ln C, while little more than nothing is known. The
    second half matters: a linear head at an excessive rate is a perceptron, whose logits, and with them the loss of its
    few mistakes, are huge, and which may classify well all the same.
    """
    if watched.get("running_right", -1.0) < 0:  # below zero, as in older checkpoints, until there has been a step
        watched["running_loss"], watched["running_right"] = loss, right
    watched["running_loss"] += (1 - DECAY) * (loss - watched["running_loss"])
    watched["running_right"] += (1 - DECAY) * (right - watched["running_right"])
    knows_little = watched["running_right"] < (1 + 1 / classes) / 2
    lost = knows_little and watched["running_loss"] > TIMES_CHANCE * math.log(classes)
    return f"The loss has exploded, to {watched['running_loss']:.3g}," if lost else None
