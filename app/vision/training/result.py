"""Holds what a finished training run gives, whatever its task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.vision.images.preprocessing import Preprocessing
from app.vision.settings.config import TrainConfig
from app.vision.tasks.task import Finished, Table
from app.vision.training.pictures import rate_curve
from app.vision.training.rate_search import RateSearch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FitResult:
    """Holds a finished run: the model file, the records of its epochs, and what the task leaves of it.

    `notes` are for the run's user: what was not done as asked for, and why.
    """

    model_path: Path
    task: str
    config: TrainConfig
    preprocessing: Preprocessing
    history: list[dict[str, Any]]
    best_epoch: int  # from 1
    finished: Finished
    rate_search: RateSearch | None = None  # where the configuration asked for one
    notes: Sequence[str] = ()

    @property
    def metrics(self) -> dict[str, Any]:
        """Return what was measured on each split."""
        return self.finished.metrics

    @property
    def recorded(self) -> Mapping[str, Any]:
        """Return what stands beside the metrics where models are listed."""
        return self.finished.recorded

    @property
    def tables(self) -> Mapping[str, Table]:
        """Return the tables, by the names of their files without the ending."""
        return self.finished.tables

    @property
    def pictures(self) -> Mapping[str, Callable[[], Figure]]:
        """Return what draws each picture, by the name of its file."""
        if self.rate_search is None:
            return self.finished.pictures
        found = self.rate_search
        return {**self.finished.pictures, "rate-search.png": lambda: rate_curve(found)}
