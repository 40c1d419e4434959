"""A slot: one job at a time, or a place in one, from claim to end, each in a child that was started ahead of it."""

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.logging import log
from app.core.settings import Settings
from app.datasets import service as datasets
from app.jobs import checkpoints, claiming, sharing
from app.jobs.orm import Job, JobMember
from app.jobs.queue import Claim, ClaimLost
from app.jobs.types import JobType, Resource
from app.storage import BlobStore
from app.storage.disk import disk_errors_explained
from worker.machines.address import interface_of, own_address
from worker.machines.crew import Crew
from worker.machines.member import Member
from worker.processes.messages import Place, Work
from worker.processes.process import Child
from worker.supervision.attempt import Attempt
from worker.supervision.free_space import StorageCheck, storage_failure

_REWARM_EVERY = 5.0  # seconds


class Slot:
    """Runs jobs of the kinds that share it, each in a child of its own.

    With `ahead` a child of the first kind that wants it is started before its job, and waits with everything imported.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: BlobStore,
        storage: StorageCheck,
        kinds: Sequence[JobType],
        worker: str,
        device: int | None,
        ahead: bool = True,
    ) -> None:
        self.kinds = {kind.name: kind for kind in kinds}
        self._settings = settings
        self._database = database
        self._store = store
        self._storage = storage
        self._worker = worker
        self._device = device
        self._warmed = next((kind for kind in kinds if kind.warm and ahead), None)
        self._shares = any(kind.shared for kind in kinds)
        self._warm: Child | None = None
        self._warmed_at = -_REWARM_EVERY
        self._stopping = threading.Event()
        self._rung = threading.Event()
        self._busy = threading.Lock()

    def ring(self, told: bool = True) -> None:
        """Run jobs until none waits, `told` that one does, or to see whether.

        If the slot is busy, it will look once more when it is not: no ring is lost.
        """
        self._rung.set()
        while self._rung.is_set() and not self._stopping.is_set() and self._busy.acquire(blocking=False):
            try:
                self._rung.clear()
                # A child that dies of its imports is not started over and over while nothing waits.
                if time.monotonic() - self._warmed_at >= _REWARM_EVERY:
                    self._warm_up()
                while not self._stopping.is_set() and self._run_next(told):
                    told = False
                told = False
            finally:
                self._busy.release()

    def stop(self) -> None:
        """Give the running job back at its next step and take no other. Returns when the slot is idle."""
        self._stopping.set()
        with self._busy:
            self._cool_down()

    def _warm_up(self) -> None:
        """Have a child ready, with everything imported, before there is a job for it."""
        if self._warmed is not None and (self._warm is None or not self._warm.alive()):
            self._cool_down()
            self._warmed_at = time.monotonic()
            self._warm = Child(self._warmed, self._device, self._memory_of(self._warmed))

    def _memory_of(self, kind: JobType) -> int | None:
        return self._settings.train_memory_bytes if kind.slot is Resource.gpu else None

    def _cool_down(self) -> None:
        if self._warm is not None:
            self._warm.kill()
            self._warm = None

    def _run_next(self, told: bool) -> bool:
        """Run one job or take one place in one, if there is any. Who is not told so looks before it writes: SQLite has
        one writer at a time, which idle workers do not hold up."""
        if not told:
            with self._database.reading() as session:
                if not self._waits(session):
                    return False
        if self._storage.look() is not None:
            return False
        with self._database.writing() as session:
            # Who was told so expects a job. Machines that wait for this one come first all the same: then it has none.
            place = None if told else self._join(session)
            job = session.get_one(Job, place.job_id) if place else self._claim(session)
            if job is not None:
                name = f"job-{job.id}-{place.epoch}.{place.number}" if place else f"job-{job.id}-{job.epoch}"
                work = _work(session, job, self._settings.scratch / name)
        if job is None:
            return told and self._run_next(told=False)
        if place is not None:
            self.run_place(place, job, work)
        else:
            self.run_job(job, work)
        return True

    def _waits(self, session: Session) -> bool:
        if self._shares and sharing.vacant(session, self._worker):
            return True
        return claiming.waiting(session, self.kinds, self._settings.max_running_jobs)

    def _claim(self, session: Session) -> Job | None:
        limits = self._settings.lease_seconds, self._settings.max_running_jobs
        unless = sharing.vacancy(self._worker) if self._shares else None
        return claiming.claim(session, self.kinds, self._worker, *limits, unless)

    def _join(self, session: Session) -> JobMember | None:
        """Take a place in a job that another worker leads, if one waits for machines."""
        if not self._shares or not sharing.vacant(session, self._worker):
            return None
        return sharing.join(session, self._worker, self._settings.lease_seconds)

    def run_job(self, job: Job, work: Work) -> None:
        """Run a job that was just claimed, to its end or until this slot has to let it go."""
        scratch = Path(work["scratch"])
        machines, crew = sharing.machines_of(job), None
        if machines > 1:
            work["place"] = self._place(0, machines, None)
            crew = Crew(self._settings, Claim(job.id, job.epoch), self._worker, machines)
        with self._child(self.kinds[job.kind], scratch) as child:
            attempt = Attempt(
                self._settings, self._database, self._store, job, child, self._stopping, self._storage, crew
            )
            try:
                with disk_errors_explained(scratch):
                    scratch.mkdir(parents=True, exist_ok=True)
                attempt.supervise(work)
            except Unavailable as error:  # of the disk: the database's is ClaimLost
                attempt.set_back(storage_failure(error))
            except ClaimLost as lost:
                log.warning("claim_lost", job=str(job.id), detail=lost.detail)

    def run_place(self, place: JobMember, job: Job, work: Work) -> None:
        """Compute this machine's part of a job that another one leads."""
        scratch = Path(work["scratch"])
        work["checkpoints"] = []  # the leader has read the one that they go on from
        work["place"] = self._place(place.number, sharing.machines_of(job), place.address)
        log.info("member_started", job=str(job.id), number=place.number, meeting=place.address)
        with self._child(self.kinds[job.kind], scratch) as child:
            member = Member(self._settings, self._database, place, child, self._stopping)
            try:
                with disk_errors_explained(scratch):
                    scratch.mkdir(parents=True, exist_ok=True)
            except Unavailable as error:
                log.warning("member_broke_off", job=str(job.id), number=place.number, how=error.detail)
                member.leave(done=False)
            else:
                member.supervise(work)

    def _place(self, number: int, machines: int, meeting: str | None) -> Place:
        interface = interface_of(own_address(self._settings))
        return Place(number=number, machines=machines, meeting=meeting, interface=interface)

    @contextmanager
    def _child(self, kind: JobType, scratch: Path) -> Iterator[Child]:
        """Give a child for one job, the warm one if it is of that kind. It ends then, its folder goes, and another one
        is warmed up."""
        if kind is self._warmed and self._warm is not None and self._warm.alive():
            child, self._warm = self._warm, None
        else:
            child = Child(kind, self._device, self._memory_of(kind))
        try:
            yield child
        finally:
            child.kill()
            shutil.rmtree(scratch, ignore_errors=True)
            if not self._stopping.is_set():
                self._warm_up()


def _work(session: Session, job: Job, scratch: Path) -> Work:
    version = datasets.get_version(session, job.dataset_version_id) if job.dataset_version_id else None
    earlier = checkpoints.newest_first(session, job.id) if job.epoch > 1 else []  # an epoch is a claim, or a release
    return Work(
        spec=job.spec,
        manifest_sha256=version.manifest_sha256 if version else None,
        checkpoints=[row.sha256 for row in earlier],
        scratch=str(scratch),
    )
