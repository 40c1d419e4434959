"""Computes logits and OOD scores of the images that a finished network never learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from app.vision.data.feeds import Feed
from app.vision.networks.network import Head
from app.vision.runtime import ranks
from app.vision.scores.ood import LEAST_IMAGES, OodScorer, fit_ood, sample_rows


@dataclass(frozen=True)
class HeldOut:
    """Holds, for "val" and for "test" where there is one, logits float32 [N, C] and OOD scores float32 [N].

    Without `ood`, for which there were too few validation images, there are no scores.
    """

    logits: dict[str, Tensor]
    ood_scores: dict[str, NDArray[np.float32]]
    ood: OodScorer | None


def look_at_held_out(head: Head, feed: Feed, labels: Mapping[str, NDArray[np.int64]]) -> HeldOut:
    """Compute the held-out images as prediction does.

    The training images give the statistics of the OOD scores, and validation sets their limit.
    """
    splits = [split for split in labels if split != "train"]
    if len(labels["val"]) < LEAST_IMAGES:
        plain = {split: feed.exactly(split, lambda features: {"logits": head(features)}) for split in splits}
        return HeldOut({split: one["logits"] for split, one in plain.items()}, {}, None)
    rows = sample_rows(labels["train"])
    ood = ranks.agree(fit_ood(feed.known_features(rows), labels["train"][rows]))

    def both(features: Tensor) -> dict[str, Tensor]:
        return {"logits": head(features), "distances": ood.distances(features.cpu())}

    found = {split: feed.exactly(split, both) for split in splits}
    ood = ood.limited(found["val"]["distances"].numpy())
    scores = {split: (one["distances"] / ood.limit).numpy() for split, one in found.items()}
    return HeldOut({split: one["logits"] for split, one in found.items()}, scores, ood)
