"""An observer follows a run: it hears of progress, epochs and checkpoints, and is asked whether to stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Observer(Protocol):
    """Follows a run from the thread that trains; a slow observer slows the run."""

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        """Hear that `fraction` (0..1, never decreasing) of the whole run is done, and the seconds that are left.

        `eta_s` is None until there is a guess.
        """

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Hear the record of an epoch.

        Every task's record holds epoch (from 1), epochs, train_loss, learning_rate, images_per_s and duration_s; what
        the task counts and validates stands beside them.
        """

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        """Take the checkpoint that lies at `path` until this returns; `step` steps of `epoch` (from 1) are done.

        `best`: it is the first with the weights of the best epoch so far, so it is worth keeping beside the last two.
        """

    def should_stop(self) -> bool:
        """Return True to end the run with a checkpoint; asked after every optimiser step."""


class SilentObserver:
    """Hears nothing, for another process of the run reports; it is asked whether to stop all the same."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop

    def should_stop(self) -> bool:
        return self._should_stop()

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        pass

    def epoch(self, metrics: dict[str, Any]) -> None:
        pass

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        pass
