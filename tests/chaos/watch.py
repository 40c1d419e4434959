"""Looks at the rows all the time: what must never be so, not even for a moment."""

import threading
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from app.core.errors import GraftError
from app.jobs.orm import Job
from app.jobs.states import TERMINAL
from tests.chaos.service import Breakable


@dataclass
class _Seen:
    epoch: int
    progress: float
    final: str | None


class Watch(threading.Thread):
    """Notes every job whose progress goes back under one claim, that leaves a terminal state, or whose
    `finished_at` does not go with its state."""

    def __init__(self, service: Breakable) -> None:
        super().__init__(name="watch", daemon=True)
        self._service = service
        self._seen: dict[UUID, _Seen] = {}
        self._done = threading.Event()
        self.faults: list[str] = []
        self.looks = 0

    def run(self) -> None:
        while not self._done.wait(0.4):
            try:
                self._look()
            except GraftError:  # the database is one of the things that are broken
                continue

    def stop(self) -> None:
        self._done.set()
        self.join()

    def _look(self) -> None:
        columns = select(Job.id, Job.epoch, Job.state, Job.progress, Job.finished_at)
        with self._service.database.reading() as session:
            rows = session.execute(columns).all()
        self.looks += 1
        for job_id, epoch, state, progress, finished_at in rows:
            before = self._seen.get(job_id)
            if (finished_at is not None) != (state in TERMINAL):
                self.faults.append(f"{job_id} is {state} with finished_at {finished_at}")
            if before and before.final not in (None, state):
                self.faults.append(f"{job_id} was {before.final} and is {state}")
            if before and epoch < before.epoch:
                self.faults.append(f"{job_id} went back from epoch {before.epoch} to {epoch}")
            if before and epoch == before.epoch and progress < before.progress:
                self.faults.append(f"{job_id} went back from {before.progress} to {progress} under one claim")
            self._seen[job_id] = _Seen(epoch, progress, state if state in TERMINAL else None)
