"""Jobs as callers see them: submit, look up, cancel. Workers use `claiming` and `queue`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core import outbox
from app.core.clock import DatabaseTime
from app.core.errors import Conflict, NotFound
from app.core.paging import Page, paginate
from app.datasets import service as datasets
from app.datasets.orm import Dataset
from app.jobs import checkpoints, events, queue
from app.jobs.doorbell import Doorbell, ring_after_commit
from app.jobs.orm import Checkpoint, EpochMetrics, Job, JobMember
from app.jobs.scheduling import Scheduled
from app.jobs.schemas import Spec
from app.jobs.states import TERMINAL, JobState, check_transition
from app.jobs.types import KNOWN, JobType

_ROWS_AT_ONCE = 500


def submit(
    session: Session,
    doorbell: Doorbell,
    kind: JobType,
    workspace_id: UUID,
    spec: Spec,
    max_attempts: int,
    *,
    asked: Scheduled | None = None,
    dataset_id: UUID | None = None,
    dataset_version_id: UUID | None = None,
) -> Job:
    """Write a new job down as queued, and ring once that is committed.

    `asked` says when it may run and for how long; `max_attempts` is for one that asks for no number of them.
    """
    asked = asked or Scheduled()
    job = Job(
        kind=kind.name,
        dataset_version_id=dataset_version_id,
        spec=spec.model_dump(mode="json", exclude_unset=True),
        max_attempts=asked.max_attempts or max_attempts,
        priority=asked.priority,
        run_after=asked.run_after,
        max_seconds=asked.max_seconds,
    )
    return enqueue(session, doorbell, workspace_id, dataset_id, job)


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
    kind: str | None,
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
    """Make sure that no job needs the dataset: a job that fills it is cancelled, any other that waits or runs refuses.

    Locks the dataset. Raises `NotFound` if it was deleted meanwhile.
    """
    unfinished = select(Job).where(Job.dataset_id == dataset.id, Job.state.not_in(TERMINAL)).order_by(Job.id)
    # Jobs before their dataset, as a worker does that ends an ingestion: the other way round they wait for each other.
    session.scalars(unfinished.with_for_update().execution_options(populate_existing=True)).all()
    datasets.get(session, dataset.workspace_id, dataset.id, lock=True)
    active = session.scalars(unfinished).all()
    users = [str(job.id) for job in active if (kind := KNOWN.find(job.kind)) is None or kind.holds_dataset]
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
    """Return the newest checkpoint of a job that offers one; of an ended job only one that diverged does."""
    job = get(session, workspace_id, job_id)
    kind = KNOWN.find(job.kind)
    found = checkpoints.newest_first(session, job.id) if kind is not None and kind.offers_checkpoint else []
    if not found:
        raise NotFound(f"Job {job_id} is {job.state} and holds no checkpoint.", code="no_checkpoint")
    return found[0]


def referenced_blobs(session: Session) -> set[str]:
    """Return the SHA-256 of every blob that a job needs, or that is its result."""
    return {*session.scalars(select(Checkpoint.sha256)), *_blobs_of_rows(session)}


def _blobs_of_rows(session: Session) -> Iterator[str]:
    for kind in KNOWN:
        of_kind = Job.kind == kind.name
        for row in _rows(session, Job.spec, of_kind, Job.state.not_in(TERMINAL)):
            yield from kind.spec_blobs(row.spec)
        if kind.result_blobs is not None:
            for row in _rows(session, Job.result, of_kind, Job.result.is_not(None)):
                yield from kind.result_blobs(row.result)
    # Newer code knows what these need; here it may be anything that looks like a blob's name.
    strange = Job.kind.not_in(KNOWN.names())
    for row in _rows(session, Job.spec, strange):
        yield from _names_of_blobs(row.spec)
    for row in _rows(session, Job.result, strange, Job.result.is_not(None)):
        yield from _names_of_blobs(row.result)


def _rows(session: Session, column: InstrumentedAttribute[Any], *conditions: ColumnElement[bool]) -> Iterator[Any]:
    """Yield `id` and `column` of the jobs that meet the conditions, without holding all of them in memory."""
    query = select(Job.id, column).where(*conditions).order_by(Job.id).limit(_ROWS_AT_ONCE)
    rows = session.execute(query).all()
    while rows:
        yield from rows
        rows = session.execute(query.where(Job.id > rows[-1].id)).all() if len(rows) == _ROWS_AT_ONCE else []


def _names_of_blobs(value: Any) -> Iterator[str]:
    """Yield every text in a JSON value that may be a SHA-256."""
    if isinstance(value, str):
        if re.fullmatch("[0-9a-f]{64}", value):
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _names_of_blobs(item)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _names_of_blobs(item)


def forget(session: Session, ended_before: DatabaseTime, limit: int = 200) -> int:
    """Delete jobs that ended before then, with all they reported and with the blobs of their results; datasets and
    models that they made stay. Returns how many, at most `limit`."""
    old = session.scalars(
        select(Job.id).where(Job.state.in_(TERMINAL), Job.finished_at < ended_before).limit(limit)
    ).all()
    outbox.forget_subjects(session, old)
    for table in (EpochMetrics, Checkpoint, JobMember):
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
