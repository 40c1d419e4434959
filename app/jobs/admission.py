"""Whether a job may be queued: its dataset is ready, and its workspace's queue has room."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import Session

from app.auth.orm import Workspace
from app.core.errors import Conflict, FieldError, Invalid, NotFound, TooMany
from app.datasets import service as datasets
from app.datasets.orm import Dataset, DatasetVersion
from app.datasets.states import DatasetState
from app.jobs.orm import Job
from app.jobs.states import JobKind, JobState

_QUEUE_FULL_RETRY = 30  # seconds
_WORDS = {JobKind.train: "trainings", JobKind.ingest: "uploads", JobKind.predict: "batches of predictions"}

# Put together once: that takes longer than to run them.
_HOLD = select(Workspace.id).where(Workspace.id == bindparam("workspace")).with_for_update(key_share=True)
_COUNT = select(func.count()).where(
    Job.workspace_id == bindparam("workspace"),
    Job.kind == bindparam("kind"),
    Job.state.in_(bindparam("states", expanding=True)),
)


def target(
    session: Session, workspace_id: UUID, reference: str, *, lock: bool = False
) -> tuple[Dataset, DatasetVersion]:
    """The dataset that a training asks for, and its newest version. Raises `Invalid` and `Conflict`."""
    try:
        dataset = datasets.get(session, workspace_id, reference, lock=lock)
    except NotFound as error:
        raise Invalid(error.detail, code="unknown_dataset", errors=[FieldError("dataset", error.detail)]) from None
    if dataset.state is not DatasetState.ready:
        why = (
            "is still being read; wait for its state to be ready"
            if dataset.state is DatasetState.processing
            else (f"could not be read: {(dataset.failure or {}).get('detail', '')} Upload it again")
        )
        raise Conflict(f"The dataset {dataset.name!r} {why}.", code="dataset_not_ready", retry_after=2)
    return dataset, datasets.latest_versions(session, [dataset.id])[dataset.id]


def check_machines(session: Session, machines: int) -> None:
    """Refuse a job of several machines where there can be no second one: with a database that is a file of this one."""
    if machines > 1 and session.get_bind().dialect.name == "sqlite":
        detail = (
            f"{machines}: workers of several machines meet through the database, and this service's is a SQLite file "
            "of one machine. Use 1 and let `processes` share its GPUs, or run the service on PostgreSQL "
            "(GRAFT_DATABASE_URL)."
        )
        raise Invalid(detail, errors=[FieldError("resources.machines", detail)])


def check_queue(session: Session, workspace_id: UUID, kind: JobKind, max_queued: int | None) -> None:
    """Refuse one job more than may wait. The workspace's row is held, so that two at once do not both fit."""
    if max_queued is None:
        return
    session.execute(_HOLD, {"workspace": workspace_id})
    waiting = count(session, workspace_id, kind, [JobState.queued])
    if (refusal := queue_refusal(waiting, kind, max_queued)) is not None:
        raise refusal


def count(session: Session, workspace_id: UUID, kind: JobKind, states: Collection[JobState]) -> int:
    """How many jobs of that kind the workspace has in these states."""
    return session.execute(_COUNT, {"workspace": workspace_id, "kind": kind, "states": list(states)}).scalar_one()


def queue_refusal(waiting: int, kind: JobKind, max_queued: int) -> TooMany | None:
    """Why one job more may not wait beside those that do, if so."""
    if waiting >= max_queued:
        return TooMany(
            f"{waiting} {_WORDS[kind]} of this workspace wait already, and {max_queued} may. "
            f"Wait for some to start or cancel some; GET /v1/jobs?kind={kind}&state=queued lists them.",
            code="queue_full",
            retry_after=_QUEUE_FULL_RETRY,
        )
    return None
