"""Jobs that predict: many stored images classified in one job, whose rows are downloaded."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from sqlalchemy.orm import Session

from app.api.deps import IdempotencyKey, PredictCaller, Reader, Services, ServicesDep
from app.api.downloads import TABLE, Rows, TableFormat, table_response
from app.api.routes import Route
from app.api.submission import submit_once
from app.api.views import problems
from app.datasets import service as datasets
from app.jobs.orm import Job
from app.jobs.schemas import JobOut
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
    """A job like any other, of kind `predict`: `GET /v1/jobs/{id}?wait=60` waits for its end, `/events` streams it.
    Then `GET /v1/jobs/{id}/predictions` has a row for each image; one that cannot be read has an `error` of its own."""
    listed = _put_list(body, services, caller.workspace_id)

    def submit(session: Session) -> Job:
        limits = services.settings.max_attempts, services.settings.max_queued_jobs
        return batch.submit(session, services.doorbell, caller.workspace_id, body, listed, *limits)

    return submit_once(services, caller.workspace_id, key, "POST /v1/jobs:predict", body, submit)


def _put_list(body: PredictJobRequest, services: Services, workspace_id: UUID) -> Blob | None:
    """The images that are named, found and put into the store: bytes come before the row that names them."""
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
    """A line for each image, in the order of the list or of the version: its SHA-256 as `image`, the `id` that it was
    asked for by, its `split` and `label` in the version, and what a predict call would answer of it: `predictions` or
    `error`. CSV has the most probable class, and where all `probabilities` were asked for a column for each class. The
    answer is streamed, however many images there are."""
    with services.database.reading() as session:
        blob, job = batch.result_of(session, reader.workspace_id, job_id)
        result, spec = job.result or {}, job.spec
    classes = list(result["predicted"]) if spec["probabilities"] == "all" else None

    def to_csv(rows: Rows) -> Any:
        return result_csv(rows, classes)

    return table_response(services.store, blob, f"predictions-{job_id}", format, to_csv)
