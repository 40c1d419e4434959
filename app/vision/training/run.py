"""What a training run takes and gives: samples, the observer that follows it, and the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.vision.data.folder_names import Split
from app.vision.errors import InvalidData
from app.vision.images.preprocessing import Preprocessing
from app.vision.settings.config import TrainConfig

if TYPE_CHECKING:
    from app.vision.training.rate_search import RateSearch


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image; `label` is the index of its class. `sha256` is that of its file, read where it is empty."""

    path: Path
    label: int
    split: Split
    sha256: str = ""


class Observer(Protocol):
    """Follows a run from the thread that trains; a slow observer slows the run."""

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        """`fraction` (0..1) covers the whole run and never decreases; `eta_s` is None until there is a guess."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """After each epoch: epoch (from 1), epochs, train_loss, train_accuracy, val_loss, val_accuracy, val_macro_f1,
        learning_rate, images_per_s, duration_s. Losses are in nats."""

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        """A checkpoint lies at `path` until this returns; `step` steps of `epoch` (from 1) are done.

        `best`: it is the first with the weights of the best epoch so far, so it is worth keeping beside the last two.
        """

    def should_stop(self) -> bool:
        """Asked after every optimiser step; True ends the run with a checkpoint."""


class Quiet:
    """An observer that tells nobody anything, for another process of the run does; it is asked whether to stop."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self.stops = should_stop

    def should_stop(self) -> bool:
        return self.stops()

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        pass

    def epoch(self, metrics: dict[str, Any]) -> None:
        pass

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        pass


@dataclass(frozen=True)
class FitResult:
    """A finished run. `probabilities` holds float32 [N, C] for "val" and "test", rows in the order of the samples.

    They are what the model answers: divided by the `temperature` that suits the validation images, unlike the losses
    of the epochs. `notes` are for the run's user: what was not done as asked for, and why. `scores` holds the
    out-of-distribution scores float32 [N] of the same images, where the model has them, and `decisions` is
    `app.vision.tasks.classify.selective_prediction.decisions_of` where the configuration has a target.
    """

    model_path: Path
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    best_epoch: int
    preprocessing: Preprocessing
    config: TrainConfig
    probabilities: dict[str, NDArray[np.float32]]
    temperature: float = 1.0
    rate_search: RateSearch | None = None  # where the configuration asked for one
    notes: Sequence[str] = ()
    scores: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    decisions: dict[str, Any] | None = None


def check_samples(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    """Raises InvalidData, naming the first thing that makes training pointless or impossible."""
    if len(classes) < 2:
        raise InvalidData(f"{len(classes)} class(es): at least two are needed to tell apart.")
    if len(set(classes)) < len(classes):
        raise InvalidData("Two classes have the same name.")
    for sample in samples:
        if not 0 <= sample.label < len(classes):
            raise InvalidData(f"{sample.path.name} has label {sample.label}, but there are {len(classes)} classes.")
    splits = Counter(sample.split for sample in samples)
    if not splits["val"]:
        raise InvalidData("No validation images: put some of them into the split 'val', a fifth is usual.")
    trained = Counter(sample.label for sample in samples if sample.split == "train")
    if missing := [name for label, name in enumerate(classes) if not trained[label]]:
        raise InvalidData(f"No training images of {', '.join(missing[:5])}: add some, or leave the class out.")
