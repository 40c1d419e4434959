"""The kind of job that predicts, as the queue and the workers know it."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.jobs.orm import Job
from app.jobs.types import JobType, Resource
from app.predictions.batch.schemas import PredictResult, PredictSpec


def _keep_rows(session: Session, job: Job, body: dict[str, Any]) -> PredictResult:
    """Keep where the rows are and what they count; nothing else is written."""
    return PredictResult.model_validate({"model_id": job.spec["model_id"], **body})


def _model_and_list(spec: Mapping[str, Any]) -> Iterable[str]:
    """Return what is predicted with and of: it must not go although its model or its images may be deleted."""
    return [spec[name] for name in ("artefact_sha256", "images_sha256") if spec.get(name)]


def _rows(result: Mapping[str, Any]) -> Iterable[str]:
    return [result["file"]["sha256"]] if "file" in result else []


PREDICT = JobType(
    name="predict",
    noun="batches of predictions",
    slot=Resource.cpu,
    spec=PredictSpec,
    result=PredictResult,
    run="worker.kinds.predict:predict",
    finish=_keep_rows,
    spec_blobs=_model_and_list,
    result_blobs=_rows,
    alike=("backbone",),
)
