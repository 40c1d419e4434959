"""Jobs that fill datasets: queue one, and find those of given datasets."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.datasets.orm import Dataset
from app.datasets.schemas import SplitOptions
from app.ingestions.schemas import IngestSpec
from app.ingestions.type import INGEST
from app.jobs import service as jobs
from app.jobs.admission import check_queue
from app.jobs.doorbell import Doorbell
from app.jobs.orm import Job


def submit(
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
    check_queue(session, dataset.workspace_id, INGEST, max_queued)
    spec = {"archive_sha256": dataset.archive_sha256, **options.model_dump()}
    if max_bytes is not None:
        spec |= {"format": dataset.upload["format"], "max_bytes": max_bytes}
    asked = IngestSpec.model_validate(spec)
    return jobs.submit(session, doorbell, INGEST, dataset.workspace_id, asked, max_attempts, dataset_id=dataset.id)


def newest_of(session: Session, dataset_ids: Sequence[UUID]) -> dict[UUID, Job]:
    """Return the job that fills each of these datasets, as far as it is remembered."""
    query = select(Job).where(Job.dataset_id.in_(dataset_ids), Job.kind == INGEST.name).order_by(Job.id)
    return {job.dataset_id: job for job in session.scalars(query) if job.dataset_id is not None}
