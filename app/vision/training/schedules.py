"""Computes the learning rate of each step."""

from __future__ import annotations

import math

from app.vision.settings.config import Schedule, TrainConfig, filled_in
from app.vision.training.checkpoint import Position

CLIMB = 0.3  # share of the steps in which "one_cycle" climbs
PLATEAU_EPOCHS = 3  # epochs without a lower validation loss after which "plateau" divides the rate
PLATEAU_DIVISOR = 10.0


def learning_rate(peak: float, schedule: Schedule, step: int, steps: int, warmup: float) -> float:
    """Return the rate of `step` (0-based) of `steps`: linear warm-up over a share `warmup` of them, then the schedule.

    "cosine" falls to zero (Loshchilov & Hutter 2017, arXiv:1608.03983); "step" divides by ten after half and after
    three quarters of the run; "exponential" falls evenly to a hundredth. "one_cycle" (Smith & Topin 2018,
    arXiv:1708.07120) climbs from a 25th of the peak for 30 % of the run and then falls to a ten-thousandth of where it
    began, with no other warm-up. "plateau" is constant here: see `watch_plateau`.
    """
    if schedule == "one_cycle":
        return _one_cycle(peak, step / max(steps - 1, 1))
    warm = math.ceil(steps * warmup)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    done = (step - warm) / max(steps - warm, 1)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    if schedule == "step":
        return peak * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    return peak * 0.01**done if schedule == "exponential" else peak


def _one_cycle(peak: float, done: float) -> float:
    start, end = peak / 25, peak / 25e4
    if done < CLIMB:
        return start + (peak - start) * (1 - math.cos(math.pi * done / CLIMB)) / 2
    return end + (peak - end) * (1 + math.cos(math.pi * (done - CLIMB) / (1 - CLIMB))) / 2


def rate_of(config: TrainConfig, position: Position, step: int, steps: int) -> float:
    """Return the rate of `step` (0-based, counted over the run) of a run that has come to `position`."""
    peak = filled_in(config.learning_rate)
    return learning_rate(peak, config.schedule, step, steps, config.warmup) * position.plateau_factor


def watch_plateau(position: Position, val_loss: float) -> None:
    """Note an epoch's validation loss; the "plateau" schedule lowers the rate when it has stopped falling."""
    if val_loss < position.lowest_loss:
        position.lowest_loss, position.flat_epochs = val_loss, 0
        return
    position.flat_epochs += 1
    if position.flat_epochs >= PLATEAU_EPOCHS:
        position.plateau_factor, position.flat_epochs = position.plateau_factor / PLATEAU_DIVISOR, 0
