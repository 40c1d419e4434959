"""What a job tells its listeners: numbered events, written in the transaction of the change they tell of."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.orm import Job, JobEvent
from app.jobs.states import JobState


def tell(session: Session, job: Job, kind: str, data: dict[str, Any], *, counted: bool = False) -> None:
    """Append an event. The caller holds the job's row, so numbers have no gap and no double.

    `counted`: the statement of the change has raised the row's `event_seq` already.
    """
    if not counted:
        job.event_seq += 1
    session.add(JobEvent(job_id=job.id, seq=job.event_seq, type=kind, data=data))


def tell_state(session: Session, job: Job, *, counted: bool = False) -> None:
    """Append an event with the job's present state and what belongs to it."""
    data: dict[str, Any] = {"state": job.state.value, "attempt": job.attempt, "progress": job.progress}
    if job.setback and job.state is JobState.queued:
        data["setback"] = job.setback
    if job.failure:
        data["failure"] = job.failure
    if job.result:
        data["result"] = job.result
    tell(session, job, "state", data, counted=counted)


def after(session: Session, job_id: UUID, seq: int, limit: int = 500) -> Sequence[JobEvent]:
    """Events with numbers above `seq`, in order."""
    query = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > seq).order_by(JobEvent.seq).limit(limit)
    return session.scalars(query).all()
