"""Decide whether a job may be queued: its workspace's queue is not full, and there can be as many machines."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from app.auth.orm import Workspace
from app.core.errors import FieldError, Invalid, TooMany
from app.jobs.orm import Job
from app.jobs.states import JobState
from app.jobs.types import JobType

_QUEUE_FULL_RETRY = 30  # seconds

# Put together once: that takes longer than to run them.
_HOLD = select(Workspace.id).where(Workspace.id == bindparam("workspace")).with_for_update(key_share=True)
_COUNT = select(func.count()).where(
    Job.workspace_id == bindparam("workspace"),
    Job.kind == bindparam("kind"),
    Job.state.in_(bindparam("states", expanding=True)),
)


def check_machines(session: Session, machines: int) -> None:
    """Refuse a job of several machines where there can be no second one: with a database that is a file of this one."""
    if machines > 1 and session.get_bind().dialect.name == "sqlite":
        detail = (
            f"{machines}: workers of several machines meet through the database, and this service's is a SQLite file "
            "of one machine. Use 1 and let `processes` share its GPUs, or run the service on PostgreSQL "
            "(GRAFT_DATABASE_URL)."
        )
        raise Invalid(detail, errors=[FieldError("resources.machines", detail)])


def check_queue(session: Session, workspace_id: UUID, kind: JobType, max_queued: int | None) -> None:
    """Refuse one job more than may wait. The workspace's row is held, so that two at once do not both fit."""
    if max_queued is None:
        return
    session.execute(_HOLD, {"workspace": workspace_id})
    waiting = count(session, workspace_id, kind, [JobState.queued])
    if (refusal := queue_refusal(waiting, kind, max_queued)) is not None:
        raise refusal


def count(session: Session, workspace_id: UUID, kind: JobType, states: Collection[JobState]) -> int:
    """Return how many jobs of that kind the workspace has in these states."""
    return session.execute(_COUNT, {"workspace": workspace_id, "kind": kind.name, "states": list(states)}).scalar_one()


def queue_refusal(waiting: int, kind: JobType, max_queued: int) -> TooMany | None:
    """Return why one job more may not wait beside those that do; None if it may."""
    if waiting >= max_queued:
        return TooMany(
            f"{waiting} {kind.noun} of this workspace wait already, and {max_queued} may. "
            f"Wait for some to start or cancel some; GET /v1/jobs?kind={kind.name}&state=queued lists them.",
            code="queue_full",
            retry_after=_QUEUE_FULL_RETRY,
        )
    return None
