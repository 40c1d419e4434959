"""Whatever callers, workers and lost workers do in whatever order: a model of the queue, and what is always true."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select

from app.core.database import Base, Database
from app.core.errors import Conflict
from app.datasets.orm import Dataset
from app.datasets.states import DatasetState
from app.jobs import checkpoints, claiming, events, queue
from app.jobs import service as jobs
from app.jobs.orm import Job
from app.jobs.queue import Claim, ClaimLost
from app.jobs.states import HELD, TERMINAL, JobState
from app.storage import Blob
from app.work import JOB_TYPES
from tests.support.factories import FAILURE, ingestion, new_dataset, prediction, sha, training, workspace

ATTEMPTS = 2
MOST = 4  # jobs, so that each sees something
WORKERS = ["a", "b", "c"]
KINDS = [kind.name for kind in JOB_TYPES]
LEASE = 1000.0  # seconds; far longer than the test takes, so that only its own clock lets one run out


@dataclass
class Expected:
    """What the row of a job should say."""

    kind: str
    state: JobState = JobState.queued
    attempt: int = 0
    holder: int | None = None  # the epoch of the claim that stands
    worker: str | None = None
    lease_ends: float = 0.0  # by the clock of the test
    progress: float = 0.0
    checkpoints: int = 0


class LifeOfJobs(RuleBasedStateMachine):
    """Drives the real queue, and beside it the simplest account of what it should do."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.now = 0.0
        self.expected: dict[UUID, Expected] = {}
        self.claims: list[Claim] = []
        with self.database.writing() as session:
            for table in reversed(Base.metadata.sorted_tables):
                session.execute(table.delete())
            self.workspace_id = workspace(session).id

    @rule(leases=st.sampled_from([0.3, 0.45, 2.5]))  # no sum of them is a lease: which side wins would be chance
    def time_passes(self, leases: float) -> None:
        """The database's clock cannot be set, so every time that is written moves into the past instead."""
        passed = timedelta(seconds=LEASE * leases)
        self.now += LEASE * leases
        with self.database.writing() as session:
            for job in session.scalars(select(Job)):
                for column in Job.__mapper__.column_attrs:
                    value = getattr(job, column.key)
                    if isinstance(value, datetime):
                        setattr(job, column.key, value - passed)

    def holds(self, held: Claim) -> Expected | None:
        job = self.expected[held.job_id]
        return job if job.holder == held.epoch else None

    @staticmethod
    def ends(job: Expected, state: JobState) -> None:
        job.state, job.holder, job.checkpoints = state, None, 0

    @staticmethod
    def waits(job: Expected) -> None:
        job.state, job.holder = JobState.queued, None

    def draw_claim(self, data: st.DataObject) -> Claim:
        """One that stands, or any that was ever given out."""
        standing = [held for held in self.claims if self.holds(held)]
        lost = not standing or data.draw(st.integers(0, 4)) == 0
        return data.draw(st.sampled_from(self.claims if lost else standing))

    @precondition(lambda self: len(self.expected) < MOST)
    @rule(kind=st.sampled_from(KINDS))
    def submit(self, kind: str) -> None:
        with self.database.writing() as session:
            if kind == "train":
                job = training(session, max_attempts=ATTEMPTS)
            elif kind == "predict":
                job = prediction(session, max_attempts=ATTEMPTS)
            else:
                dataset = new_dataset(session, f"upload {len(self.expected)}")
                job = ingestion(session, dataset, max_attempts=ATTEMPTS)
        self.expected[job.id] = Expected(kind)

    def waiting(self, *kinds: str) -> list[UUID]:
        return [job_id for job_id, job in self.expected.items() if job.state == JobState.queued and job.kind in kinds]

    @precondition(lambda self: self.waiting(*KINDS))
    @rule(data=st.data(), worker=st.sampled_from(WORKERS))
    def claim(self, data: st.DataObject, worker: str) -> None:
        kind = data.draw(st.sampled_from([kind for kind in KINDS if self.waiting(kind)]))
        with self.database.writing() as session:
            job = claiming.claim(session, [kind], worker, LEASE)
        assert job is not None
        assert job.id == min(self.waiting(kind))
        found = self.expected[job.id]
        found.state, found.attempt, found.holder = JobState.running, found.attempt + 1, job.epoch
        found.worker, found.lease_ends, found.progress = worker, self.now + LEASE, 0.0
        self.claims.append(Claim(job.id, job.epoch))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def renew(self, data: st.DataObject) -> None:
        held = self.draw_claim(data)
        job = self.holds(held)
        try:
            with self.database.writing() as session:
                state = queue.renew(session, held, LEASE)
        except ClaimLost:
            assert job is None
        else:
            assert job is not None
            assert state is job.state
            job.lease_ends = self.now + LEASE

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), progress=st.sampled_from([0.25, 0.5, 1.5]))
    def report(self, data: st.DataObject, progress: float) -> None:
        held = self.draw_claim(data)
        job = self.holds(held)
        try:
            with self.database.writing() as session:
                queue.report_progress(session, held, "training", progress, 1.0)
                queue.record_epoch(session, held, {"epoch": 1})
        except ClaimLost:
            assert job is None
        else:
            assert job is not None
            job.progress = max(job.progress, min(progress, 1.0))

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def checkpoint(self, data: st.DataObject) -> None:
        held = self.draw_claim(data)
        job = self.holds(held)
        try:
            with self.database.writing() as session:
                queue.record_checkpoint(session, held, Blob(sha("x"), 1), 1, 1)
        except ClaimLost:
            assert job is None
        else:
            assert job is not None
            job.checkpoints = min(job.checkpoints + 1, 2)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), how=st.sampled_from(["succeed", "fail", "retry", "cancelled", "release"]))
    def finish(self, data: st.DataObject, how: str) -> None:
        held = self.draw_claim(data)
        job = self.holds(held)
        try:
            with self.database.writing() as session:
                if how == "succeed":
                    queue.succeed(session, queue.locked(session, held), {})
                elif how in ("fail", "retry"):
                    {"fail": queue.fail, "retry": queue.retry}[how](session, held, FAILURE)
                else:
                    {"cancelled": queue.cancelled, "release": queue.release}[how](session, held)
        except ClaimLost:
            assert job is None
            return
        except Conflict:  # out of turn
            assert job is not None
            assert (how, job.state) in (("succeed", JobState.cancelling), ("cancelled", JobState.running))
            return
        assert job is not None
        if job.state is JobState.cancelling:
            assert how != "succeed"
            self.ends(job, JobState.cancelled)
        elif how == "succeed":
            job.progress = 1.0
            self.ends(job, JobState.succeeded)
        elif how == "release":
            job.attempt -= 1
            self.waits(job)
        elif how == "retry" and job.attempt < ATTEMPTS:
            self.waits(job)
        else:
            assert how in ("fail", "retry")
            self.ends(job, JobState.failed)

    @rule()
    def expire(self) -> None:
        overdue = {job_id for job_id, job in self.expected.items() if job.state in HELD and job.lease_ends < self.now}
        with self.database.writing() as session:
            assert set(queue.expire(session)) == overdue
        for job in (self.expected[job_id] for job_id in overdue):
            if job.state is JobState.cancelling:
                self.ends(job, JobState.cancelled)
            elif job.attempt < ATTEMPTS:
                self.waits(job)
            else:
                self.ends(job, JobState.failed)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.expected)))
        job = self.expected[job_id]
        try:
            with self.database.writing() as session:
                jobs.cancel(session, self.workspace_id, job_id)
        except Conflict:
            assert job.state in (JobState.succeeded, JobState.failed)
        else:
            if job.state is JobState.queued:
                self.ends(job, JobState.cancelled)
            elif job.state is JobState.running:
                job.state = JobState.cancelling

    @invariant()
    def rows_are_as_expected(self) -> None:
        with self.database.reading() as session:
            rows = {job.id: job for job in session.scalars(select(Job))}
            assert set(rows) == set(self.expected)
            assert all(claiming.waiting(session, [kind]) == bool(self.waiting(kind)) for kind in KINDS)
            for job_id, job in self.expected.items():
                row = rows[job_id]
                assert (row.state, row.attempt, row.progress) == (job.state, job.attempt, job.progress)
                assert row.worker == job.worker
                assert len(checkpoints.newest_first(session, job_id)) == job.checkpoints
                assert row.attempt <= row.max_attempts
                if job.holder is not None:
                    assert queue.is_held(session, Claim(job_id, job.holder))

    @invariant()
    def what_is_true_of_every_job(self) -> None:
        with self.database.reading() as session:
            for job in session.scalars(select(Job)):
                ended = job.state in TERMINAL
                assert (job.finished_at is not None) == ended
                assert (job.result is not None) == (job.state is JobState.succeeded)
                assert (job.failure is not None) == (job.state is JobState.failed)
                told = events.after(session, job.id, 0)
                assert [one.seq for one in told] == list(range(1, job.event_seq + 1))
                assert [one.data["state"] for one in told if one.type == "state"][-1] == job.state
                assert not (ended and checkpoints.newest_first(session, job.id))
                if job.kind == "ingest":
                    failed = session.get_one(Dataset, job.dataset_id).state is DatasetState.failed
                    assert failed == (job.state in (JobState.failed, JobState.cancelled))


def test_the_life_of_jobs(database: Database) -> None:
    run_state_machine_as_test(
        lambda: LifeOfJobs(database),  # type: ignore[arg-type]
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,  # the same steps each time: a test says the same of the same code
            database=None,
            phases=[Phase.generate],  # shrinking a failure would take longer than a test may
            suppress_health_check=list(HealthCheck),
        ),
    )
