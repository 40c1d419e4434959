"""The registry of workers: each writes itself down and keeps its row alive; callers see who there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, or_, select, update
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime
from app.core.paging import Page, paginate
from app.jobs.orm import Job, JobMember, RegisteredWorker
from app.jobs.schemas import WorkerOut
from app.jobs.states import HELD
from app.jobs.types import Resource

_REMEMBERED = 86_400.0  # seconds for which a lost worker is listed


def register(
    session: Session,
    *,
    name: str,
    host: str,
    version: str,
    devices: Sequence[dict[str, Any]],
    train_slots: int,
    lost_after: float,
) -> UUID:
    """Write down a worker that starts. A row of the same name is of an earlier process, and is deleted."""
    session.execute(delete(RegisteredWorker).where(RegisteredWorker.name == name))
    row = RegisteredWorker(name=name, host=host, version=version, devices=list(devices), train_slots=train_slots)
    row.expires_at = DatabaseTime(lost_after)
    session.add(row)
    session.flush()
    return row.id


def beat(
    session: Session,
    worker_id: UUID,
    *,
    devices: Sequence[dict[str, Any]],
    problem: dict[str, Any] | None,
    lost_after: float,
) -> bool:
    """Keep the row alive for another `lost_after` seconds. Returns False if it is gone: the worker registers again."""
    found = session.execute(
        update(RegisteredWorker)
        .where(RegisteredWorker.id == worker_id)
        .values(
            devices=list(devices),
            problem=problem,
            heartbeat_at=DatabaseTime(),
            expires_at=DatabaseTime(lost_after),
        )
        .returning(RegisteredWorker.id)
    )
    return found.scalar() is not None


def is_eldest(session: Session, worker_id: UUID | None) -> bool:
    """Return whether that worker is the one that started first of those alive: it does what one of them has to do."""
    alive = select(RegisteredWorker.id).where(RegisteredWorker.expires_at > DatabaseTime())
    first = session.scalar(alive.order_by(RegisteredWorker.started_at, RegisteredWorker.id).limit(1))
    return first is not None and first == worker_id


def leave(session: Session, worker_id: UUID) -> None:
    """Delete the row of a worker that stops in good order."""
    session.execute(delete(RegisteredWorker).where(RegisteredWorker.id == worker_id))


def forget_lost(session: Session) -> None:
    """Delete workers that have been lost for a day."""
    session.execute(delete(RegisteredWorker).where(RegisteredWorker.expires_at < DatabaseTime(-_REMEMBERED)))


def list_workers(session: Session, workspace_id: UUID, *, limit: int, cursor: str | None) -> Page[WorkerOut]:
    """Return every worker, the youngest first. They serve all workspaces; of their jobs only the caller's are named."""
    page = paginate(session, select(RegisteredWorker), RegisteredWorker.id, limit=limit, cursor=cursor)
    now = session.execute(select(DatabaseTime())).scalar_one()
    names = [row.name for row in page.items]
    led = select(Job.worker, Job.id, Job.workspace_id).where(Job.state.in_(HELD), Job.worker.in_(names))
    shared = select(JobMember.worker, Job.id, Job.workspace_id).where(
        Job.id == JobMember.job_id,
        Job.epoch == JobMember.epoch,
        Job.state.in_(HELD),
        JobMember.number > 0,  # the leader's job is its own
        JobMember.worker.in_(names),
        ~JobMember.done,
    )
    running: dict[str, list[Any]] = {}
    for job in sorted([*session.execute(led), *session.execute(shared)], key=lambda row: row.id):
        running.setdefault(job.worker, []).append(job)
    return Page([_view(row, running.get(row.name, []), workspace_id, now) for row in page.items], page.next_cursor)


def _view(row: RegisteredWorker, held: Sequence[Any], workspace_id: UUID, now: Any) -> WorkerOut:
    facts = {column.key: getattr(row, column.key) for column in RegisteredWorker.__table__.columns}
    return WorkerOut(
        **facts,
        state="alive" if row.expires_at > now else "lost",
        running=len(held),
        jobs=[job.id for job in held if job.workspace_id == workspace_id],
    )


@dataclass(frozen=True, slots=True)
class Capacity:
    """The offer of living workers: slots of one resource, and machines that could share a job.

    `blocked`: one of them has a problem and offers none.
    """

    slots: int
    machines: int
    blocked: bool


_ALIVE = select(RegisteredWorker.train_slots, RegisteredWorker.problem).where(
    RegisteredWorker.expires_at > DatabaseTime()
)


def slots_of(slot: Resource, train_slots: int) -> int:
    """Return how many slots of that resource a worker has: one a GPU, or as many as it was told, and one of the others.

    A long training holds up no upload so, and no job that predicts (docs/decisions/0006).
    """
    return train_slots if slot is Resource.gpu else 1


def capacity(session: Session, slot: Resource) -> Capacity:
    alive = session.execute(_ALIVE).all()
    able = [row.train_slots for row in alive if row.problem is None]
    offered = sum(slots_of(slot, train_slots) for train_slots in able)
    return Capacity(offered, sum(1 for one in able if one > 0), blocked=len(able) < len(alive))


def needed() -> ColumnElement[int]:
    """Return SQL for how many machines are to share a job."""
    return func.coalesce(Job.spec[("resources", "machines")].as_integer(), 1)


def able() -> ColumnElement[int]:
    """Return SQL for the number of living workers that have a GPU slot: those that may share a job."""
    alive, well = RegisteredWorker.expires_at > DatabaseTime(), RegisteredWorker.problem.is_(None)
    here = alive, well, RegisteredWorker.train_slots > 0
    return select(func.count()).select_from(RegisteredWorker).where(*here).scalar_subquery()


def suffice() -> ColumnElement[bool]:
    """Return SQL for whether there are as many of them as machines are to share a job."""
    return or_(needed() == 1, needed() <= able())
