"""Tables of jobs, what they report while they run, and their checkpoints. The job's row is the queue and the truth."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.auth.orm import Workspace
from app.core.clock import DatabaseTime, UtcDateTime
from app.core.database import Base, Json, enum_column
from app.core.ids import new_id
from app.datasets.orm import Dataset, DatasetVersion
from app.jobs.states import TERMINAL, JobState

_TERMINAL = ", ".join(f"'{state}'" for state in sorted(TERMINAL))


class Job(Base):
    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_claim", "state", "kind", "priority", "id"),
        CheckConstraint(f"(finished_at IS NOT NULL) = (state IN ({_TERMINAL}))", name="finished"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(Workspace.id), index=True)
    kind: Mapped[str] = mapped_column(String(32))  # the name of a `JobType`; newer code may know more of them
    state: Mapped[JobState] = mapped_column(enum_column(JobState), default=JobState.queued)
    # None of predictions for images that were named one by one: they may lie in several.
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey(Dataset.id), index=True)
    dataset_version_id: Mapped[UUID | None] = mapped_column(ForeignKey(DatasetVersion.id))
    spec: Mapped[dict[str, Any]] = mapped_column(Json)

    # When it may run, and for how long.
    priority: Mapped[int] = mapped_column(default=0)
    run_after: Mapped[datetime | None] = mapped_column(UtcDateTime)
    max_seconds: Mapped[float | None]
    ran_seconds: Mapped[float] = mapped_column(default=0.0)  # in attempts that are over

    # Who holds it. `epoch` is the fence: it grows with every claim, and only its holder's writes find the row.
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    epoch: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(255))
    lease_expires_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    # What it says.
    phase: Mapped[str | None] = mapped_column(String(32))
    progress: Mapped[float] = mapped_column(default=0.0)
    eta_seconds: Mapped[float | None]
    event_seq: Mapped[int] = mapped_column(default=0)
    setback: Mapped[dict[str, Any] | None] = mapped_column(Json)
    failure: Mapped[dict[str, Any] | None] = mapped_column(Json)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)

    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class EpochMetrics(Base):
    """One finished epoch of training. A resumed run that repeats an epoch replaces its row."""

    __tablename__ = "epoch_metrics"

    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    metrics: Mapped[dict[str, Any]] = mapped_column(Json)


class Checkpoint(Base):
    """A place from where a run can go on. The bytes are the blob `sha256`."""

    __tablename__ = "checkpoints"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id), index=True)
    attempt: Mapped[int]
    epoch: Mapped[int]
    step: Mapped[int]
    best: Mapped[bool]  # the first with the weights of the best epoch by then
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())


class JobMember(Base):
    """One machine's place in an attempt at a job that several share. Number 0 is the leader's, which holds the job.

    A place is held under its `id`: every attempt makes new ones, and those of the attempt before go.
    """

    __tablename__ = "job_members"
    __table_args__ = (
        UniqueConstraint("job_id", "number", name="uq_job_members_number"),
        UniqueConstraint("job_id", "worker", name="uq_job_members_worker"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[UUID] = mapped_column(ForeignKey(Job.id))
    epoch: Mapped[int]  # the job's
    number: Mapped[int]
    address: Mapped[str] = mapped_column(String(255))  # host:port, where all of them meet
    worker: Mapped[str | None] = mapped_column(String(255))  # None: the place is free
    done: Mapped[bool] = mapped_column(default=False)  # left in good order: what is still to do is the leader's
    lease_expires_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())


class RegisteredWorker(Base):
    """A worker process, as it describes itself. It is lost once `expires_at` is past."""

    __tablename__ = "workers"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    host: Mapped[str] = mapped_column(String(255))
    version: Mapped[str] = mapped_column(String(32))
    devices: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    train_slots: Mapped[int]
    problem: Mapped[dict[str, Any] | None] = mapped_column(Json)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
