"""The machines that share a job: its leader makes a place for each, and other workers take them, each under a lease.

The leader is the worker that claimed the job, and the only one that writes its row. Used by workers, but for `lacking`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from app.core.clock import DatabaseTime
from app.jobs import queue
from app.jobs.claiming import TURN
from app.jobs.orm import Job, JobMember
from app.jobs.queue import Claim
from app.jobs.states import JobState

_Place = aliased(JobMember)


@dataclass(frozen=True, slots=True)
class Attendance:
    """Counts of the places that others have taken and of those that still compute, and the workers that are lost."""

    taken: int
    present: int
    lost: list[str]


def machines_of(job: Job) -> int:
    """Return how many machines are to share the job."""
    machines: int = job.spec.get("resources", {}).get("machines", 1)
    return machines


def gather(session: Session, held: Claim, worker: str, address: str, machines: int) -> None:
    """Make places for so many machines that meet at `address` (host:port), the first one the leader's own.

    The job's running time stands still until they `begin`. Raises `ClaimLost`.
    """
    job = queue.locked(session, held)
    session.execute(delete(JobMember).where(JobMember.job_id == job.id))
    for number in range(machines):
        taken_by = worker if number == 0 else None
        session.add(JobMember(job_id=job.id, epoch=job.epoch, number=number, address=address, worker=taken_by))
    job.phase = "meeting"
    job.claimed_at = None
    session.flush()


def begin(session: Session, held: Claim) -> None:
    """All have met: the job's running time goes on. Raises `ClaimLost`."""
    job = queue.locked(session, held)
    job.claimed_at = DatabaseTime()


def vacant(session: Session, worker: str) -> bool:
    """Return whether `join` would find a place. Reads only."""
    return session.scalar(vacancy(worker)) is not None


@lru_cache  # each slot asks before each job
def vacancy(worker: str) -> Select[UUID]:
    """Return the statement that finds a place which `join` would take."""
    return select(_Place.id).where(*_free(worker)).limit(1)


def join(session: Session, worker: str, lease_seconds: float) -> JobMember | None:
    """Take a free place of the job that comes first, in one statement. Returns None where there is none.

    A worker has one place in a job at most, for the machines are to be different ones.
    """
    first = (
        select(_Place.id)
        .where(*_free(worker))
        .order_by(*TURN, _Place.number)
        .limit(1)
        .with_for_update(skip_locked=True, of=_Place)
        .scalar_subquery()
    )
    take = update(JobMember).where(JobMember.id == first)
    try:
        with session.begin_nested():
            return session.scalar(
                take.values(worker=worker, lease_expires_at=DatabaseTime(lease_seconds)).returning(JobMember)
            )
    except IntegrityError:  # another slot of this worker has just taken a place in the same job
        return None


def renew(session: Session, member_id: UUID, lease_seconds: float) -> bool:
    """Keep the place. Returns False if the job has ended, is being cancelled, or was claimed again."""
    same = Job.id == JobMember.job_id, Job.epoch == JobMember.epoch, Job.state == JobState.running
    kept = session.scalar(
        update(JobMember)
        .where(JobMember.id == member_id, select(Job.id).where(*same).exists())
        .values(lease_expires_at=DatabaseTime(lease_seconds))
        .returning(JobMember.id)
    )
    return kept is not None


def leave(session: Session, member_id: UUID, *, done: bool) -> None:
    """Give the place up. Unless its part is `done`, the worker counts as lost from now on."""
    session.execute(
        update(JobMember).where(JobMember.id == member_id).values(done=done, lease_expires_at=DatabaseTime())
    )


def attendance(session: Session, held: Claim) -> Attendance:
    """Return which of a job's other machines are there."""
    late = (JobMember.lease_expires_at < DatabaseTime()).label("late")
    query = select(JobMember.worker, JobMember.done, late).where(
        JobMember.job_id == held.job_id,
        JobMember.epoch == held.epoch,
        JobMember.number > 0,
        JobMember.worker.is_not(None),
    )
    rows = session.execute(query.order_by(JobMember.number)).all()
    lost = [row.worker for row in rows if row.late and not row.done]
    return Attendance(len(rows), len([row for row in rows if not row.done]) - len(lost), lost)


def outranked(session: Session, held: Claim, worker: str) -> bool:
    """Return whether a job that comes before this one has a free place that this one keeps the worker from taking.

    Two leaders that waited for each other's workers would wait for ever.
    """
    mine = aliased(Job)
    earlier = or_(Job.priority > mine.priority, and_(Job.priority == mine.priority, Job.id < mine.id))
    query = select(_Place.id).where(mine.id == held.job_id, earlier, *_free(worker))
    return session.scalar(query.limit(1)) is not None


def lacking(session: Session, job_ids: Collection[UUID]) -> set[UUID]:
    """Return those of the jobs that a leader holds and whose places are not all taken."""
    same = Job.id == JobMember.job_id, Job.epoch == JobMember.epoch, Job.state == JobState.running
    query = select(JobMember.job_id).where(JobMember.job_id.in_(job_ids), *same, JobMember.worker.is_(None))
    return set(session.scalars(query))


def _free(worker: str) -> list[ColumnElement[bool]]:
    own = aliased(JobMember)
    takes_part = select(own.id).where(own.job_id == _Place.job_id, own.worker == worker).exists()
    return [
        Job.id == _Place.job_id,
        Job.epoch == _Place.epoch,
        Job.state == JobState.running,
        _Place.worker.is_(None),
        ~takes_part,
    ]
