"""Claim the job that a worker takes next, which begins a lease. Used by workers alone, but for `TURN`."""

from collections.abc import Collection
from functools import lru_cache
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningUpdate

from app.core.clock import DatabaseTime
from app.jobs import events, workers
from app.jobs.orm import Job
from app.jobs.states import HELD, JobState

# The order in which jobs are run: the higher priority first, then the older. Ids sort by age.
TURN = Job.priority.desc(), Job.id


def claim(
    session: Session,
    kinds: Collection[str],
    worker: str,
    lease_seconds: float,
    max_running: int | None = None,
    unless: Select[UUID] | None = None,
) -> Job | None:
    """Take the waiting job of these kinds that comes first, in one statement; None if there is none, or while `unless`
    finds something.

    Jobs of a workspace that runs `max_running` of that kind are passed over. Two claims of the same instant do not see
    each other, and may exceed that by one.
    """
    statement = _claim(tuple(kinds), worker, lease_seconds, max_running, unless)
    # The row that comes back is the session's, whatever it held.
    fresh = {"synchronize_session": False, "populate_existing": True}
    job = session.scalar(statement, execution_options=fresh)
    if job is not None:
        events.tell_state(session, job, counted=True)
        session.flush()
    return job


# Kept: to put this together takes longer than to run it.
@lru_cache
def _claim(
    kinds: tuple[str, ...],
    worker: str,
    lease_seconds: float,
    max_running: int | None,
    unless: Select[UUID] | None,
) -> ReturningUpdate[Job]:
    conditions = _claimable(kinds, max_running)
    if unless is not None:
        conditions.append(~unless.correlate(None).exists())
    first = (
        select(Job.id)
        .where(*conditions)
        .order_by(*TURN)
        .limit(1)
        # Two workers never wait for each other, and never take the same row. SQLite has one writer at a time.
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return (
        update(Job)
        .where(Job.id == first)
        .values(
            state=JobState.running,
            worker=worker,
            attempt=Job.attempt + 1,
            epoch=Job.epoch + 1,
            event_seq=Job.event_seq + 1,
            lease_expires_at=DatabaseTime(lease_seconds),
            claimed_at=DatabaseTime(),
            started_at=func.coalesce(Job.started_at, DatabaseTime()),
            phase="starting",
            progress=0.0,
            eta_seconds=None,
        )
        .returning(Job)
    )


def waiting(session: Session, kinds: Collection[str], max_running: int | None = None) -> bool:
    """Return whether a claim would find something. Reads only, so that idle workers do not take the write lock."""
    return session.scalar(_first_waiting(tuple(kinds), max_running)) is not None


@lru_cache
def _first_waiting(kinds: tuple[str, ...], max_running: int | None) -> Select[UUID]:
    return select(Job.id).where(*_claimable(kinds, max_running)).limit(1)


def _claimable(kinds: Collection[str], max_running: int | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [
        Job.state == JobState.queued,
        Job.kind.in_(kinds),
        or_(Job.run_after.is_(None), Job.run_after <= DatabaseTime()),
        workers.suffice(),
    ]
    if max_running is not None:
        other = aliased(Job)
        same = other.workspace_id == Job.workspace_id, other.kind == Job.kind, other.state.in_(HELD)
        running = select(func.count()).select_from(other).where(*same).correlate(Job).scalar_subquery()
        conditions.append(running < max_running)
    return conditions
