"""A slot: one job at a time, from claim to end. The slot is the job's parent and the one writer of its row."""

import math
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.logging import log
from app.core.settings import Settings
from app.datasets import service as datasets
from app.jobs import checkpoints, queue
from app.jobs.orm import Job
from app.jobs.queue import Claim, ClaimLost
from app.jobs.states import JobKind, JobState
from app.storage import Blob
from app.storage.disk import disk_errors_explained
from worker.death import death
from worker.messages import Message, Work
from worker.oom import oom_kills
from worker.process import Child, ChildGone
from worker.results import record_result
from worker.room import Room, storage_failure

_PROGRESS_EVERY = 0.3  # seconds between progress writes
_REWARM_EVERY = 5.0  # seconds
_MENDED_WITHIN = 15.0  # seconds after which a job that found no room is tried again
_CANCEL_GRACE = 2.0  # seconds; a cancelled job has nothing to keep


class Slot:
    """Runs jobs of one kind, each in a child of its own; the next child is started ahead of its job."""

    def __init__(
        self, settings: Settings, database: Database, room: Room, kind: JobKind, worker: str, device: int | None
    ) -> None:
        self.kind = kind
        self._settings = settings
        self._database = database
        self._room = room
        self._worker = worker
        self._device = device
        self._warm: Child | None = None
        self._warmed_at = -_REWARM_EVERY
        self._stopping = threading.Event()
        self._rung = threading.Event()
        self._busy = threading.Lock()

    def ring(self) -> None:
        """Run jobs until none waits. If the slot is busy, it will look once more when it is not: no ring is lost."""
        self._rung.set()
        while self._rung.is_set() and not self._stopping.is_set() and self._busy.acquire(blocking=False):
            try:
                self._rung.clear()
                # A child that dies of its imports is not started over and over while nothing waits.
                if time.monotonic() - self._warmed_at >= _REWARM_EVERY:
                    self._warm_up()
                while not self._stopping.is_set() and self._run_next():
                    pass
            finally:
                self._busy.release()

    def stop(self) -> None:
        """Give the running job back at its next step and take no other. Returns when the slot is idle."""
        self._stopping.set()
        with self._busy:
            self._cool_down()

    def _warm_up(self) -> Child:
        """Have a child ready, with everything imported, before there is a job for it."""
        if self._warm is None or not self._warm.alive():
            self._cool_down()
            self._warmed_at = time.monotonic()
            self._warm = Child(self.kind, self._device)
        return self._warm

    def _cool_down(self) -> None:
        if self._warm is not None:
            self._warm.kill()
            self._warm = None

    def _run_next(self) -> bool:
        with self._database.reading() as session:
            if not queue.waiting(session, [self.kind], self._settings.max_running_jobs):
                return False
        if self._room.look() is not None:
            return False
        with self._database.writing() as session:
            limits = self._settings.lease_seconds, self._settings.max_running_jobs
            job = queue.claim(session, [self.kind], self._worker, *limits)
            if job is None:
                return False
            held = Claim(job.id, job.epoch)
            scratch = self._settings.scratch / f"job-{job.id}-{job.epoch}"
            work = _work(session, job, scratch)
            allowance = _Allowance(job)
        log.info("job_started", job=str(held.job_id), kind=self.kind.value, attempt=job.attempt)
        child, self._warm = self._warm_up(), None
        run = _Run(self._settings, self._database, held, child, self._stopping, allowance, self._room)
        try:
            with disk_errors_explained(scratch):
                scratch.mkdir(parents=True, exist_ok=True)
            run.supervise(work)
        except Unavailable as error:  # of the disk: the database's is ClaimLost
            run.set_back(storage_failure(error), _MENDED_WITHIN)
        except ClaimLost as lost:
            log.warning("claim_lost", job=str(held.job_id), detail=lost.detail)
        finally:
            child.kill()
            shutil.rmtree(scratch, ignore_errors=True)
            if not self._stopping.is_set():
                self._warm_up()
        return True


def _work(session: Session, job: Job, scratch: Path) -> Work:
    version = datasets.get_version(session, job.dataset_version_id) if job.dataset_version_id else None
    return Work(
        spec=job.spec,
        manifest_sha256=version.manifest_sha256 if version else None,
        checkpoints=[row.sha256 for row in checkpoints.newest_first(session, job.id)],
        scratch=str(scratch),
    )


class _Allowance:
    """The running time that a job has left."""

    def __init__(self, job: Job) -> None:
        self.max_seconds = job.max_seconds
        self._ends = math.inf if job.max_seconds is None else time.monotonic() + job.max_seconds - job.ran_seconds

    def used_up(self) -> bool:
        return time.monotonic() >= self._ends


class _Run:
    """One attempt at one job."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        held: Claim,
        child: Child,
        stopping: threading.Event,
        allowance: _Allowance,
        room: Room,
    ) -> None:
        self._settings = settings
        self._database = database
        self._held = held
        self._child = child
        self._stopping = stopping
        self._allowance = allowance
        self._room = room
        self._lease_ends = time.monotonic() + settings.lease_seconds
        self._progress_written = 0.0
        self._oom_kills = oom_kills()

    def supervise(self, work: Work) -> None:
        """Until the job has ended or was given back. Raises `ClaimLost`; the caller ends the child in every case."""
        self._child.start(work)
        beat, give_up = 0.0, None
        while True:
            now = time.monotonic()
            if now >= beat:
                beat = now + self._settings.heartbeat_seconds
                if self._renew() is JobState.cancelling:
                    self._child.kill(_CANCEL_GRACE)
                    self._write(lambda session: queue.cancelled(session, self._held))
                    return
            if self._allowance.used_up():
                self._end_past_deadline()
                return
            if self._stopping.is_set() and give_up is None:
                self._child.request_stop()
                give_up = now + self._settings.stop_grace_seconds
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
        """Write down what the child says. True if it was its last word."""
        body, held = message["body"], self._held
        match message["kind"]:
            case "progress":
                now = time.monotonic()
                if now - self._progress_written >= _PROGRESS_EVERY:
                    self._progress_written = now
                    self._write(lambda session: queue.report_progress(session, held, **body))
            case "epoch":
                self._write(lambda session: queue.record_epoch(session, held, body))
            case "checkpoint":
                blob = Blob(body.pop("sha256"), body.pop("size"))
                self._write(lambda session: queue.record_checkpoint(session, held, blob, **body))
            case "result":
                self._write(lambda session: record_result(session, held, body))
                log.info("job_succeeded", job=str(held.job_id))
                return True
            case "failed":
                self._write(lambda session: queue.fail(session, held, body["failure"], body["report"]))
                log.warning("job_failed", job=str(held.job_id), **body["failure"])
                return True
            case "setback":
                self.set_back(body, _MENDED_WITHIN)
                return True
            case "stopped":
                self._give_back()
                return True
        return False

    def _give_back(self) -> None:
        self._child.kill()
        self._write(lambda session: queue.release(session, self._held))
        log.info("job_given_back", job=str(self._held.job_id))

    def _end_past_deadline(self) -> None:
        self._child.kill(_CANCEL_GRACE)
        assert self._allowance.max_seconds is not None
        failure = queue.past_deadline(self._allowance.max_seconds)
        self._write(lambda session: queue.fail(session, self._held, failure))
        log.warning("job_failed", job=str(self._held.job_id), **failure)

    def set_back(self, failure: dict[str, Any], delay_seconds: float) -> None:
        """Let the job be tried again, after a while; after its last attempt it fails."""
        log.warning("job_broke_off", job=str(self._held.job_id), **failure)
        self._write(lambda session: queue.retry(session, self._held, failure, delay_seconds))

    def _broke_off(self, returncode: int) -> None:
        # A file in memory whose disk is full ends its process with SIGBUS.
        problem = self._room.look() if returncode == -signal.SIGBUS else None
        if problem is not None:
            self.set_back(problem, _MENDED_WITHIN)
        else:
            self.set_back(death(returncode, self._oom_kills, oom_kills()), delay_seconds=0.0)

    def _renew(self) -> JobState:
        state = JobState.running

        def renew(session: Session) -> None:
            nonlocal state
            state = queue.renew(session, self._held, self._settings.lease_seconds)

        began = time.monotonic()
        self._write(renew)
        self._lease_ends = began + self._settings.lease_seconds
        return state

    def _write(self, write: Callable[[Session], None]) -> None:
        """One fenced transaction, tried again while the database is away and the lease still runs."""
        while True:
            try:
                with self._database.writing() as session:
                    write(session)
                return
            except Unavailable as error:
                if time.monotonic() >= self._lease_ends:
                    raise ClaimLost("The database was away for as long as the lease.") from error
                log.warning("database_away", job=str(self._held.job_id), detail=error.detail)
                time.sleep(0.5)
