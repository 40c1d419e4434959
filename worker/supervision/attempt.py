"""One attempt at a job: a child computes, and this parent writes down what the child says."""

import math
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.errors import GraftError
from app.core.logging import log
from app.core.settings import Settings
from app.jobs import queue
from app.jobs.orm import Job
from app.jobs.queue import Claim
from app.jobs.states import FailureReason, JobState
from app.storage import Blob, BlobStore
from worker.machines.crew import Crew
from worker.processes.exit_reasons import death
from worker.processes.messages import Message, Work
from worker.processes.oom import oom_kills
from worker.processes.process import Child, ChildGone
from worker.supervision.free_space import StorageCheck
from worker.supervision.housekeeping import free_checkpoints
from worker.supervision.writing import write_within

_PROGRESS_EVERY = 0.3  # seconds between progress writes
_CANCEL_GRACE = 2.0  # seconds; a cancelled job has nothing to keep

T = TypeVar("T")


class Allowance:
    """The running time that a job has left."""

    def __init__(self, job: Job) -> None:
        self.max_seconds = job.max_seconds
        self._left = math.inf if job.max_seconds is None else job.max_seconds - job.ran_seconds
        self.count()

    def count(self) -> None:
        """Count from now on: the job runs."""
        self._ends = time.monotonic() + self._left

    def pause(self) -> None:
        """Stop counting: the job waits for other machines."""
        self._ends = math.inf

    def used_up(self) -> bool:
        return time.monotonic() >= self._ends


class Attempt:
    """One attempt at one job, which this worker has just claimed."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: BlobStore,
        job: Job,
        child: Child,
        stopping: threading.Event,
        storage: StorageCheck,
        crew: Crew | None = None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._store = store
        self._job = job  # as it was claimed
        self._held = Claim(job.id, job.epoch)
        self._child = child
        self._stopping = stopping
        self._allowance = Allowance(job)
        self._storage = storage
        self._crew = crew
        self._lease_ends = time.monotonic() + settings.lease_seconds
        self._progress_written = 0.0
        self._oom_kills = oom_kills()
        self._replaced: set[str] = set()  # checkpoints that newer ones took the place of, not yet freed

    def supervise(self, work: Work) -> None:
        """Run until the job has ended or was given back; the caller ends the child. Raises `ClaimLost`."""
        self._child.start(work)
        log.info("job_started", job=str(self._job.id), kind=self._job.kind, attempt=self._job.attempt)
        beat, give_up = 0.0, None
        while True:
            now = time.monotonic()
            if now >= beat:
                beat = now + self._settings.heartbeat_seconds
                if self._renew() is JobState.cancelling:
                    self._end_cancelled()
                    return
                if self._crew is not None and self._broke_up(self._crew):
                    return
            if self._allowance.used_up():
                self._end_past_deadline()
                return
            if self._stopping.is_set() and give_up is None:
                self._child.request_stop()
                waits = self._crew is not None and not self._crew.complete  # and has nothing to keep
                give_up = now + (0.0 if waits else self._settings.stop_grace_seconds)
            if give_up is not None and now >= give_up:
                self._give_back()
                return
            try:
                message = self._child.receive(min(beat, now + 0.2) - now)
            except ChildGone as gone:
                if give_up is not None and gone.returncode == -signal.SIGTERM:
                    self._give_back()  # told to stop before it could listen, while it still imported: no attempt
                else:
                    self._broke_off(gone.returncode)
                return
            if message is not None and self._handle(message):
                return

    def _handle(self, message: Message) -> bool:
        """Write down what the child says. Returns whether it was its last word."""
        body, held = message["body"], self._held
        match message["kind"]:
            case "meeting":
                assert self._crew is not None
                self._allowance.pause()
                self._write(partial(self._crew.gather, port=body["port"]))
            case "met":
                assert self._crew is not None
                self._write(self._crew.begin)
                self._allowance.count()
            case "progress":
                now = time.monotonic()
                if now - self._progress_written >= _PROGRESS_EVERY:
                    self._progress_written = now
                    self._write(lambda session: queue.report_progress(session, held, **body))
            case "epoch":
                self._write(lambda session: queue.record_epoch(session, held, body))
            case "checkpoint":
                blob = Blob(body.pop("sha256"), body.pop("size"))
                self._replaced |= self._write(lambda session: queue.record_checkpoint(session, held, blob, **body))
                self._free_checkpoints()
            case "result":
                self._write(lambda session: queue.finish(session, held, body))
                log.info("job_succeeded", job=str(held.job_id))
                return True
            case "failed":
                self._write(lambda session: queue.fail(session, held, body["failure"], body["report"]))
                log.warning("job_failed", job=str(held.job_id), **body["failure"])
                return True
            case "setback":
                self._child.kill()  # if the job is being cancelled, this is its end
                self.set_back(body, at_once=body["reason"] == FailureReason.worker_lost)
                return True
            case "stopped":
                self._give_back()
                return True
        return False

    def _give_back(self) -> None:
        self._child.kill()
        self._write(lambda session: queue.release(session, self._held))
        log.info("job_given_back", job=str(self._held.job_id))

    def _end_cancelled(self) -> None:
        self._child.kill(_CANCEL_GRACE)
        while self._crew is not None and self._write(self._crew.computes):  # not for longer than their leases run
            time.sleep(0.1)
        self._write(lambda session: queue.cancelled(session, self._held))

    def _end_past_deadline(self) -> None:
        self._child.kill(_CANCEL_GRACE)
        assert self._allowance.max_seconds is not None
        failure = queue.past_deadline(self._allowance.max_seconds)
        self._write(lambda session: queue.fail(session, self._held, failure))
        log.warning("job_failed", job=str(self._held.job_id), **failure)

    def set_back(self, failure: dict[str, Any], at_once: bool = False) -> None:
        """Let the job be tried again, `at_once` or after a while; after its last attempt it fails."""
        log.warning("job_broke_off", job=str(self._held.job_id), **failure)
        delay = 0.0 if at_once else self._settings.setback_seconds
        self._write(lambda session: queue.retry(session, self._held, failure, delay))

    def _broke_up(self, crew: Crew) -> bool:
        """Give the job back if other machines that share it are missing or lost."""
        breakup = self._write(crew.breakup)
        if breakup is None:
            return False
        self._child.kill()
        failure = breakup.failure
        if failure is not None and breakup.counts:
            self.set_back(failure, at_once=True)
        else:
            delay = self._settings.setback_seconds if failure is not None else 0.0
            self._write(lambda session: queue.release(session, self._held, failure, delay))
            log.info("job_given_back", job=str(self._held.job_id), **failure or {})
        return True

    def _broke_off(self, returncode: int) -> None:
        # A file in memory whose disk is full ends its process with SIGBUS.
        problem = self._storage.look() if returncode == -signal.SIGBUS else None
        if problem is not None:
            self.set_back(problem)
        else:
            self.set_back(death(returncode, self._oom_kills, oom_kills()), at_once=True)

    def _renew(self) -> JobState:
        began = time.monotonic()
        state = self._write(lambda session: queue.renew(session, self._held, self._settings.lease_seconds))
        self._lease_ends = began + self._settings.lease_seconds
        return state

    def _free_checkpoints(self) -> None:
        """Delete the bytes of replaced checkpoints at once: they would fill the disk before the job ends."""
        try:
            # A job that put the same bytes writes its row before its lease has run out, or never.
            age = 2 * self._settings.lease_seconds
            self._replaced -= free_checkpoints(self._database, self._store, self._replaced, age)
        except GraftError as error:  # the next checkpoint, and at last housekeeping, will try again
            log.warning("checkpoints_not_freed", job=str(self._held.job_id), code=error.code, detail=error.detail)

    def _write(self, write: Callable[[Session], T]) -> T:
        """Write in one fenced transaction."""
        return write_within(self._database, write, self._lease_ends, self._held.job_id)
