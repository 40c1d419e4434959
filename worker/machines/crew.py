"""The other machines of a job that several share, as the worker that leads it waits for them and watches them."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.core.settings import Settings
from app.jobs import sharing
from app.jobs.queue import Claim
from app.jobs.states import FailureReason
from worker.machines.address import own_address


@dataclass(frozen=True, slots=True)
class Breakup:
    """The reason why an attempt cannot go on. `failure` is None where the job only lets another one go first."""

    failure: dict[str, Any] | None
    counts: bool  # as an attempt


class Crew:
    """The other machines of one attempt. The leader's child says when to `gather` and when all have come (`begin`)."""

    def __init__(self, settings: Settings, held: Claim, worker: str, machines: int) -> None:
        self._settings = settings
        self._held = held
        self._worker = worker
        self._machines = machines
        self._gathering = False
        self._taken = 0
        self._since = 0.0  # the last one came, by the monotonic clock
        self.complete = False

    def gather(self, session: Session, port: int) -> None:
        """Make places for the others, which meet at that port of this machine."""
        self._address = f"{own_address(self._settings)}:{port}"
        sharing.gather(session, self._held, self._worker, self._address, self._machines)
        self._gathering, self.complete = True, False
        self._taken, self._since = 0, time.monotonic()

    def begin(self, session: Session) -> None:
        sharing.begin(session, self._held)
        self.complete = True

    def computes(self, session: Session) -> bool:
        """Return whether another machine may still compute for the job."""
        return self._gathering and sharing.attendance(session, self._held).present > 0

    def breakup(self, session: Session) -> Breakup | None:
        """Return why the job has to be given back; None if it can go on."""
        if not self._gathering:
            return None
        found = sharing.attendance(session, self._held)
        if found.lost:
            return (
                Breakup(self._lost(found.lost), counts=True) if self.complete else Breakup(self._gone(), counts=False)
            )
        if self.complete:
            return None
        if sharing.outranked(session, self._held, self._worker):
            return Breakup(None, counts=False)
        now = time.monotonic()
        if found.taken > self._taken:
            self._taken, self._since = found.taken, now
        if now - self._since < self._settings.meeting_seconds:
            return None
        if found.taken == self._machines - 1:
            return Breakup(self._unreachable(), counts=True)
        return Breakup(self._missing(), counts=False)

    def _lost(self, lost: list[str]) -> dict[str, Any]:
        return {
            "reason": FailureReason.worker_lost,
            "detail": f"The worker {', '.join(lost)} was lost while it shared this job with {self._worker}.",
            "hint": "Look at that machine's memory and logs, and at the network between the two.",
        }

    def _gone(self) -> dict[str, Any]:
        return {
            "reason": FailureReason.machines_missing,
            "detail": "A worker that was to share this job left before all had met.",
            "hint": "Nothing, if it was stopped; else its log says why. The job tries again by itself.",
        }

    def _missing(self) -> dict[str, Any]:
        return {
            "reason": FailureReason.machines_missing,
            "detail": f"{self._taken + 1} of {self._machines} machines were free for this job within "
            f"{self._settings.meeting_seconds:g} s of each other.",
            "hint": "Wait for other trainings to end, or start more workers. The job tries again by itself.",
        }

    def _unreachable(self) -> dict[str, Any]:
        return {
            "reason": FailureReason.machines_missing,
            "detail": f"All {self._machines} machines had come, but did not reach each other within "
            f"{self._settings.meeting_seconds:g} s; they were to meet at {self._address}.",
            "hint": "Let workers reach each other on all TCP ports, and set GRAFT_WORKER_ADDRESS on each to the "
            "address at which the others reach it.",
        }
