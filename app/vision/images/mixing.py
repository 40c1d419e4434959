"""Blends the samples of a batch with one another: mixup and cutmix."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.settings.config import TrainConfig, filled_in

STREAM = 0x6D69  # keeps these draws apart from others of the same seed, epoch and batch


@dataclass(frozen=True, slots=True)
class Mix:
    """Every sample of a batch keeps `share` of itself and takes the rest from its partner.

    A batch may hold more samples than `partner` has entries: those at its end are partners and nothing else.
    `box` is the rectangle (top, bottom, left, right, in pixels) that cutmix takes from the partner; None is mixup.
    """

    partner: NDArray[np.int64]
    share: float
    box: tuple[int, int, int, int] | None = None


def draw_mix(config: TrainConfig, epoch: int, batch: int, samples: int) -> Mix | None:
    """Return how a batch is mixed; depends on (seed, epoch, number of the batch) alone.

    mixup: Zhang et al. 2018, arXiv:1710.09412; cutmix: Yun et al. 2019, arXiv:1905.04899. Where both are asked for,
    each batch has one of them, at even odds.
    """
    if not config.mixup and not config.cutmix:
        return None
    generator = np.random.default_rng([config.seed, epoch, batch, STREAM])
    partner = generator.permutation(samples)
    cut = bool(config.cutmix) and (not config.mixup or generator.random() < 0.5)
    alpha = config.cutmix if cut else config.mixup
    share = float(generator.beta(alpha, alpha))
    if not cut:
        return Mix(partner, share)
    side = filled_in(config.input_size)
    half = side * (1 - share) ** 0.5 / 2
    y, x = generator.random(2) * side
    top, bottom, left, right = (round(min(max(edge, 0), side)) for edge in (y - half, y + half, x - half, x + half))
    # The box may reach over the edge: what is left of it in whole pixels decides the share.
    return Mix(partner, 1 - (bottom - top) * (right - left) / side**2, (top, bottom, left, right))


def part_of(rows: NDArray[np.int64], how: Mix | None, start: int, stop: int) -> tuple[NDArray[np.int64], Mix | None]:
    """Return samples `start` to `stop` of a batch, mixed as in the whole of it: behind them come their partners."""
    if stop - start == len(rows):
        return rows, how  # the very same: a loader knows them by that
    own = rows[start:stop]
    if how is None:
        return own, None
    partners = rows[how.partner[start:stop]]
    return np.concatenate([own, partners]), replace(how, partner=np.arange(len(own), 2 * len(own)))


def mix(batch: Tensor, how: Mix) -> Tensor:
    """Return a float batch, mixed: features [n, F], or images [n, 3, S, S], which a box needs."""
    other = batch[torch.from_numpy(how.partner).to(batch.device)]
    batch = batch[: len(how.partner)]
    if how.box is None:
        return torch.lerp(other, batch, how.share)
    top, bottom, left, right = how.box
    mixed = batch.clone()
    mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
    return mixed
