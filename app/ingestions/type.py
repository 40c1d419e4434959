"""The kind of job that fills a dataset, as the queue and the workers know it."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.ingestion import Ingested
from app.ingestions.schemas import IngestResult, IngestSpec
from app.jobs.orm import Job
from app.jobs.states import JobState
from app.jobs.types import JobType, Resource


def _fill_dataset(session: Session, job: Job, body: dict[str, Any]) -> IngestResult:
    """Make the dataset ready, with the images and the first version that `body` (`Ingested.to_dict`) describes."""
    assert job.dataset_id is not None
    version = datasets.fill(session, job.dataset_id, Ingested(**body))
    return IngestResult(dataset_version_id=version.id, images=len(body["images"]))


def _fail_dataset(session: Session, job: Job, report: dict[str, Any] | None) -> None:
    """Let a dataset that was not filled say why, with the report on its files if there is one."""
    if job.state is not JobState.succeeded:
        failure = job.failure or {"reason": "cancelled", "detail": "Reading the upload was cancelled.", "hint": None}
        assert job.dataset_id is not None
        datasets.fail(session, job.dataset_id, failure, report)


def _upload(spec: Mapping[str, Any]) -> Iterable[str]:
    return [spec["archive_sha256"]] if spec.get("archive_sha256") else []


INGEST = JobType(
    name="ingest",
    noun="uploads",
    slot=Resource.io,
    spec=IngestSpec,
    result=IngestResult,
    run="worker.kinds.ingest:ingest",
    finish=_fill_dataset,
    ended=_fail_dataset,
    spec_blobs=_upload,
    warm=True,
    puts_early=True,
    holds_dataset=False,
)
