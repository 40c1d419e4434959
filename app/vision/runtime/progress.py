"""Tells how far a run is and how long it will take, from shares that its phases are expected to have."""

from __future__ import annotations

import time
from collections.abc import Mapping

from app.vision.runtime.observer import Observer

SILENCE_S = 0.2  # reports closer together than this are swallowed


class Progress:
    """Maps progress within a phase to the whole run; `shares` are in the order of the phases and add up to 1."""

    def __init__(self, observer: Observer, shares: Mapping[str, float]) -> None:
        self._observer = observer
        self._shares = shares
        self._phase = ""
        self._reported = 0.0
        self._last_at = 0.0
        self._began: tuple[float, float] = (0.0, 0.0)  # of this phase: time, fraction of the run

    def report(self, phase: str, done: float) -> None:
        """Tell the observer that `done` (0..1) of `phase` lies behind."""
        now = time.monotonic()
        before = sum(share for name, share in list(self._shares.items())[: list(self._shares).index(phase)])
        fraction = max(self._reported, min(before + self._shares[phase] * done, 1.0))
        if phase != self._phase:
            # A resumed run enters the training phase part of the way through, and its pace counts from there.
            self._phase, self._began = phase, (now, fraction)
        elif now - self._last_at < SILENCE_S and done < 1.0:
            return
        self._reported, self._last_at = fraction, now
        began_at, began_with = self._began
        gained = fraction - began_with
        eta = (now - began_at) * (1.0 - fraction) / gained if gained > 0 else None
        self._observer.progress(phase, fraction, eta)
