"""Jobs as callers see them: submit, look up, cancel. Workers use `claiming` and `queue`."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime
from app.core.errors import Conflict, FieldError, GraftError, Invalid, NotFound
from app.core.paging import Page, paginate
from app.datasets import service as datasets
from app.datasets.orm import Dataset
from app.datasets.schemas import SplitOptions
from app.jobs import checkpoints, events, queue
from app.jobs.admission import check_machines, check_queue, target
from app.jobs.doorbell import Doorbell, ring_after_commit
from app.jobs.orm import Checkpoint, EpochMetrics, Job, JobEvent, JobMember
from app.jobs.states import TERMINAL, JobKind, JobState, check_transition
from app.trainings.base_model import Base, pinned_artefacts
from app.trainings.schemas import TrainRequest
from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import WeightStore, default_backbone
from app.vision.errors import InvalidConfig, UnknownBackbone, WeightsUnavailable
from app.vision.settings.config import HeadConfig, TrainConfig


def submit_ingestion(
    session: Session,
    doorbell: Doorbell,
    dataset: Dataset,
    options: SplitOptions,
    max_attempts: int,
    max_queued: int | None = None,
    max_bytes: int | None = None,
) -> Job:
    """Queue the reading of a dataset's upload, or of what it names: of that at most `max_bytes`.

    Raises `TooMany` where `max_queued` uploads wait in the workspace.
    """
    assert dataset.archive_sha256 is not None
    check_queue(session, dataset.workspace_id, JobKind.ingest, max_queued)
    spec = {"archive_sha256": dataset.archive_sha256, **options.model_dump()}
    if max_bytes is not None:
        spec |= {"format": dataset.upload["format"], "max_bytes": max_bytes}
    job = Job(kind=JobKind.ingest, dataset_version_id=None, spec=spec, max_attempts=max_attempts)
    return enqueue(session, doorbell, dataset.workspace_id, dataset.id, job)


def plan_training(request: TrainRequest, weights: WeightStore, base: Base | None = None) -> TrainConfig:
    """The request with every default filled in, checked against the backbones and weights there are.

    What `base` was trained with takes the place of defaults. May ask the weights' server whether it has a file, so it
    is not to be called inside a transaction.
    """
    name = request.backbone
    if name == "auto":
        name = base.backbone if base else default_backbone(weights)
    try:
        config = _started_from(base, request, request.config(get_backbone(name).name)).resolve()
    except UnknownBackbone as error:
        raise _bad_field("backbone", error, code="unknown_backbone") from None
    except InvalidConfig as error:
        raise _bad_field(error.field, error) from None
    processes, machines = request.resources.processes, request.resources.machines
    if isinstance(config.batch_size, int) and config.batch_size < processes * machines:
        of_each = f" on each of {machines} machines" if machines > 1 else ""
        says = f"{processes}{of_each}: a batch of {config.batch_size} cannot be shared by so many; use at most that."
        raise _bad_field("resources.processes", InvalidConfig("resources.processes", says))
    backbone = get_backbone(name)
    if base is None and weights.status(backbone) == "missing":
        raise _bad_field(
            "backbone",
            weights.unavailable(backbone, "it is not on this server and cannot be downloaded"),
            code="weights_unavailable",
        )
    return config


def _started_from(base: Base | None, request: TrainRequest, config: TrainConfig) -> TrainConfig:
    """Raises InvalidConfig."""
    if base is None:
        return config
    if config.backbone != base.backbone:
        raise InvalidConfig(
            "backbone", f"{config.backbone!r}, but the base model is a {base.backbone}; leave it out or use that."
        )
    asked = request.model_fields_set
    return replace(
        config,
        base_model=base.artefact_sha256,
        head=config.head if "head" in asked else HeadConfig(**{**base.head, "hidden": tuple(base.head["hidden"])}),
        input_size=config.input_size if "input_size" in asked else base.input_size,
    )


def submit_training(
    session: Session,
    doorbell: Doorbell,
    workspace_id: UUID,
    request: TrainRequest,
    config: TrainConfig,
    max_attempts: int,
    max_queued: int | None = None,
    base: Base | None = None,
) -> Job:
    """Queue a training on the dataset's newest version. `max_attempts` is for a request that names none.

    The caller holds the row of the model in `base`, if any. Raises `TooMany` where `max_queued` trainings wait in the
    workspace.
    """
    check_machines(session, request.resources.machines)
    check_queue(session, workspace_id, JobKind.train, max_queued)
    # Locked, so that the dataset cannot be deleted between this look and the commit.
    dataset, version = target(session, workspace_id, request.dataset, lock=True)
    spec = spec_of(request, config, dataset, base)
    job = Job(
        kind=JobKind.train,
        dataset_version_id=version.id,
        spec=spec,
        max_attempts=request.max_attempts or max_attempts,
        priority=request.priority,
        run_after=request.run_after,
        max_seconds=request.max_seconds,
    )
    return enqueue(session, doorbell, dataset.workspace_id, dataset.id, job)


def spec_of(request: TrainRequest, config: TrainConfig, dataset: Dataset, base: Base | None) -> dict[str, Any]:
    """What the job's row says of a training: the request with every default filled in."""
    filled = {name: value for name, value in config.to_dict().items() if value is not None}
    spec = {
        "model_name": request.model_name or dataset.name,
        "resources": request.resources.model_dump(),
        **filled,
    }
    if base is not None:
        spec["lineage"] = base.lineage
    return spec


def get(session: Session, workspace_id: UUID, job_id: UUID, *, lock: bool = False) -> Job:
    query = select(Job).where(Job.id == job_id, Job.workspace_id == workspace_id)
    if lock:  # what this session read before it had the lock may be out of date
        query = query.with_for_update().execution_options(populate_existing=True)
    job = session.scalar(query)
    if job is None:
        raise NotFound(f"There is no job {job_id} here. GET /v1/jobs lists them.")
    return job


def list_jobs(
    session: Session,
    workspace_id: UUID,
    *,
    kind: JobKind | None,
    state: JobState | None,
    dataset_id: UUID | None,
    limit: int,
    cursor: str | None,
) -> Page[Job]:
    query = select(Job).where(Job.workspace_id == workspace_id)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if state is not None:
        query = query.where(Job.state == state)
    if dataset_id is not None:
        query = query.where(Job.dataset_id == dataset_id)
    return paginate(session, query, Job.id, limit=limit, cursor=cursor)


def cancel(session: Session, workspace_id: UUID, job_id: UUID) -> Job:
    """Stop a job. One that waits ends at once; one that runs is `cancelling` until its computation is gone."""
    job = get(session, workspace_id, job_id, lock=True)
    if job.state in (JobState.cancelling, JobState.cancelled):
        return job
    if job.state is JobState.queued:
        queue.end(session, job, JobState.cancelled)
        return job
    if job.state in TERMINAL:
        raise Conflict(f"Job {job_id} has {job.state} already; there is nothing to cancel.", code="job_ended")
    check_transition(job.state, JobState.cancelling)
    job.state = JobState.cancelling
    events.tell_state(session, job)
    session.flush()
    return job


def release_dataset(session: Session, dataset: Dataset) -> None:
    """Make sure that no job needs the dataset: its ingestion is cancelled, any other job that waits or runs refuses.

    Locks the dataset. Raises `NotFound` if it was deleted meanwhile.
    """
    unfinished = select(Job).where(Job.dataset_id == dataset.id, Job.state.not_in(TERMINAL)).order_by(Job.id)
    # Jobs before their dataset, as a worker does that ends an ingestion: the other way round they wait for each other.
    session.scalars(unfinished.with_for_update().execution_options(populate_existing=True)).all()
    datasets.get(session, dataset.workspace_id, dataset.id, lock=True)
    active = session.scalars(unfinished).all()
    users = [str(job.id) for job in active if job.kind is not JobKind.ingest]
    if users:
        raise Conflict(
            f"The dataset {dataset.name!r} is used by {len(users)} unfinished job(s): {', '.join(users)}. "
            "Cancel them or wait.",
            code="dataset_in_use",
        )
    for job in active:
        cancel(session, dataset.workspace_id, job.id)


def metrics(session: Session, job_id: UUID) -> Sequence[EpochMetrics]:
    query = select(EpochMetrics).where(EpochMetrics.job_id == job_id).order_by(EpochMetrics.epoch)
    return session.scalars(query).all()


def kept_checkpoint(session: Session, workspace_id: UUID, job_id: UUID) -> Checkpoint:
    """The newest checkpoint of a job that has one; of an ended job only one that diverged does."""
    job = get(session, workspace_id, job_id)
    # What predictions keep to go on from are their first rows; nobody can do anything else with them.
    found = checkpoints.newest_first(session, job.id) if job.kind is JobKind.train else []
    if not found:
        raise NotFound(f"Job {job_id} is {job.state} and holds no checkpoint.", code="no_checkpoint")
    return found[0]


def ingestion_jobs(session: Session, dataset_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """The ingestion job of each dataset."""
    query = select(Job).where(Job.dataset_id.in_(dataset_ids), Job.kind == JobKind.ingest)
    return {job.dataset_id: job for job in session.scalars(query) if job.dataset_id is not None}


def referenced_blobs(session: Session) -> Sequence[str]:
    """The SHA-256 of every blob that a job needs, or that is its result."""
    predicted = select(Job.result[("file", "sha256")].as_string()).where(
        Job.kind == JobKind.predict, Job.state == JobState.succeeded
    )
    checkpointed = select(Checkpoint.sha256)
    return [*session.scalars(checkpointed), *session.scalars(predicted), *pinned_artefacts(session)]


def forget(session: Session, ended_before: DatabaseTime, limit: int = 200) -> int:
    """Delete jobs that ended before then, with all they reported and with their predictions; datasets and models that
    they made stay. Returns how many, at most `limit`."""
    old = session.scalars(
        select(Job.id).where(Job.state.in_(TERMINAL), Job.finished_at < ended_before).limit(limit)
    ).all()
    for table in (JobEvent, EpochMetrics, Checkpoint, JobMember):
        session.execute(delete(table).where(table.job_id.in_(old)))
    session.execute(delete(Job).where(Job.id.in_(old)))
    return len(old)


def enqueue(session: Session, doorbell: Doorbell, workspace_id: UUID, dataset_id: UUID | None, job: Job) -> Job:
    """Write a new job down as queued, and ring once that is committed."""
    job.workspace_id, job.dataset_id = workspace_id, dataset_id
    job.state, job.attempt, job.progress, job.event_seq = JobState.queued, 0, 0.0, 1
    session.add(job)
    session.flush()
    events.tell_state(session, job, counted=True)
    session.flush()
    ring_after_commit(session, doorbell, job.kind)
    return job


def _bad_field(
    field: str, error: InvalidConfig | UnknownBackbone | WeightsUnavailable, code: str = "invalid"
) -> GraftError:
    return Invalid(str(error), code=code, errors=[FieldError(field, str(error), code)])
