"""A worker's place in a job that another one leads: its child computes along, and it has no say over the job's row."""

import signal
import threading
import time
from uuid import UUID

from app.core.database import Database
from app.core.logging import log
from app.core.settings import Settings
from app.jobs import sharing
from app.jobs.orm import JobMember
from app.jobs.queue import ClaimLost
from worker.processes.messages import Work
from worker.processes.process import Child, ChildGone
from worker.supervision.writing import write_within


class Member:
    """One place, from when it is taken until the job has ended, was taken up anew, or needs this machine no more."""

    def __init__(
        self, settings: Settings, database: Database, place: JobMember, child: Child, stopping: threading.Event
    ) -> None:
        self._settings = settings
        self._database = database
        self._id: UUID = place.id
        self._job_id: UUID = place.job_id
        self._number = place.number
        self._child = child
        self._stopping = stopping
        self._lease_ends = time.monotonic() + settings.lease_seconds
        self._met = False  # the processes of all machines

    def supervise(self, work: Work) -> None:
        """Compute until the place is given up or lost; the caller ends the child in every case."""
        try:
            done = self._compute(work)
            self._child.kill()  # before the leader, which may wait for that, hears that nothing computes here any more
            self.leave(done=done)
        except ClaimLost as lost:
            log.warning("place_lost", job=str(self._job_id), number=self._number, detail=lost.detail)

    def leave(self, *, done: bool) -> None:
        """Tell the leader: this machine has done its part, or is lost to the job."""
        write_within(
            self._database, lambda session: sharing.leave(session, self._id, done=done), self._lease_ends, self._job_id
        )
        log.info("member_left", job=str(self._job_id), number=self._number, done=done)

    def _compute(self, work: Work) -> bool:
        """Return whether the leader no longer needs this machine: its part is done, or the job ended or moved on."""
        self._child.start(work)
        beat, give_up = 0.0, None
        while True:
            now = time.monotonic()
            if now >= beat:
                beat = now + self._settings.heartbeat_seconds
                if not self._renew():
                    return True
            if self._stopping.is_set() and give_up is None:
                # All machines stop after the same step, and the leader writes the checkpoint.
                self._child.request_stop()
                give_up = now + (self._settings.stop_grace_seconds if self._met else 0.0)
            if give_up is not None and now >= give_up:
                return False
            try:
                message = self._child.receive(min(beat, now + 0.2) - now)
            except ChildGone as gone:
                how = signal.Signals(-gone.returncode).name if gone.returncode < 0 else f"exit status {gone.returncode}"
                log.warning("member_broke_off", job=str(self._job_id), number=self._number, how=how)
                return False
            match message["kind"] if message is not None else None:
                case "met":
                    self._met = True
                case "result" | "stopped":
                    return True
                case "failed":
                    return self._met  # what ended one has ended all, and the leader reports it
                case "setback":
                    return False

    def _renew(self) -> bool:
        began, lease = time.monotonic(), self._settings.lease_seconds
        kept = write_within(
            self._database, lambda session: sharing.renew(session, self._id, lease), self._lease_ends, self._job_id
        )
        self._lease_ends = began + lease
        return kept
