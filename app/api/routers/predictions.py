"""Queue jobs that classify many stored images, and download their rows."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from app.api.deps import IdempotencyKey, PredictCaller, Reader, Services, ServicesDep
from app.api.downloads import TABLE, Rows, TableFormat, table_response
from app.api.job_out import JobOut
from app.api.routes import Route
from app.api.submission import submit_once
from app.api.views import problems
from app.datasets import service as datasets
from app.jobs.orm import Job
from app.predictions.batch import service as batch
from app.predictions.batch.rows import result_csv
from app.predictions.batch.schemas import PredictJobRequest
from app.storage import Blob

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=Route)


@router.post(
    ":predict",
    status_code=202,
    response_model=JobOut,
    responses=problems(400, 409, 422, 429),
    summary="Classify many stored images",
)
def create_predict_job(
    body: PredictJobRequest, caller: PredictCaller, services: ServicesDep, key: IdempotencyKey = None
) -> Any:
    """Queue a job of kind `predict`. `GET /v1/jobs/{id}?wait=60` waits for its end, and `/events` streams its progress.
    Then `GET /v1/jobs/{id}/predictions` has a row for each image; an image that cannot be read has its own `error`."""
    listed = _put_list(body, services, caller.workspace_id)

    def submit(session: Session) -> Job:
        limits = services.settings.max_attempts, services.settings.max_queued_jobs
        return batch.submit(session, services.doorbell, caller.workspace_id, body, listed, *limits)

    return submit_once(services, caller.workspace_id, key, "POST /v1/jobs:predict", body, submit)


def _put_list(body: PredictJobRequest, services: Services, workspace_id: UUID) -> Blob | None:
    """Store the list of the named images and return its blob, before the job's row that refers to it is written.

    Returns None if the body names no images.
    """
    if body.images is None:
        return None
    with services.database.reading() as session:
        found = datasets.find_images(session, workspace_id, body.images)
    return services.store.put_bytes(batch.image_list(body.images, found))


@router.get(
    "/{job_id}/predictions",
    response_class=Response,
    responses=TABLE | problems(404, 409, 422),
    summary="Download a job's predictions",
)
def get_predictions(
    job_id: UUID, reader: Reader, services: ServicesDep, format: TableFormat = "jsonl"
) -> StreamingResponse:
    """Download one line for each image, in the order of the list or of the version: its SHA-256 as `image`, its `id` in
    the request, its `split` and `label` in the version, and the answer of a predict call: `predictions` or `error`. CSV
    has the most probable class and, if the job has `probabilities: all`, a column for each class. The response is
    streamed."""
    with services.database.reading() as session:
        blob, job = batch.result_of(session, reader.workspace_id, job_id)
        result, spec = job.result or {}, job.spec
    classes = list(result["predicted"]) if spec["probabilities"] == "all" else None

    def to_csv(rows: Rows) -> Any:
        return result_csv(rows, classes)

    return table_response(services.store, blob, f"predictions-{job_id}", format, to_csv)
