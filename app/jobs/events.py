"""Write and read a job's events, which are events of the outbox with numbers of their own within the job."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.core import outbox
from app.jobs.orm import Job
from app.jobs.states import JobState

_TOPIC = "job."


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event as the job's stream says it: `seq` counts from 1 within the job, `type` is `state` or `epoch`."""

    seq: int
    type: str
    data: dict[str, Any]
    created_at: datetime


def tell(session: Session, job: Job, kind: str, data: dict[str, Any], *, counted: bool = False) -> None:
    """Append an event. The caller holds the job's row, so numbers have no gap and no double.

    `counted`: the statement of the change has raised the row's `event_seq` already.
    """
    if not counted:
        job.event_seq += 1
    outbox.tell(session, job.workspace_id, _TOPIC + kind, job.id, data, job.event_seq)


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
    """Return the job's events with numbers above `seq`, in order.

    The job's row is locked from a number to its commit, so this needs no look at what the workspace commits meanwhile.
    """
    found = outbox.of_subject(session, job_id, seq, limit)
    return [JobEvent(one.number or 0, one.topic.removeprefix(_TOPIC), one.body, one.created_at) for one in found]
