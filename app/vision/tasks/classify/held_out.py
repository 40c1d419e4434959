"""What a finished network says of the images it never learnt from: class scores, and how unlike the others they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.runtime import ranks
from app.vision.scores.ood import LEAST_IMAGES, Novelty, fit_novelty, sample_rows
from app.vision.training.loop import Run


@dataclass(frozen=True)
class HeldOut:
    """For "val", and "test" where there is one: logits float32 [N, C] and out-of-distribution scores float32 [N].

    Without `novelty`, for which there were too few validation images, there are no scores.
    """

    logits: dict[str, Tensor]
    scores: dict[str, NDArray[np.float32]]
    novelty: Novelty | None


def look_at_held_out(run: Run) -> HeldOut:
    """Computed as prediction computes it. The training images give the statistics, validation sets the limit."""
    head, feed, labels = run.network.head, run.feed, run.labels
    splits = [split for split in labels if split != "train"]
    if len(labels["val"]) < LEAST_IMAGES:
        return HeldOut({split: feed.exactly(split, head) for split in splits}, {}, None)
    rows = sample_rows(labels["train"])
    novelty = ranks.agree(fit_novelty(feed.known_features(rows), labels["train"][rows]))

    def both(features: Tensor) -> Tensor:
        return torch.cat([head(features).cpu(), novelty.distances(features.cpu())[:, None]], dim=1)

    found = {split: feed.exactly(split, both) for split in splits}
    distances = {split: one[:, -1] for split, one in found.items()}
    novelty = novelty.limited(distances["val"].numpy())
    scores = {split: (one / novelty.limit).numpy() for split, one in distances.items()}
    return HeldOut({split: one[:, :-1] for split, one in found.items()}, scores, novelty)
