"""Create datasets from images that lie elsewhere; a job reads them."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.api.deps import IdempotencyKey, ServicesDep, Writer
from app.api.idempotency import answer_once, fingerprint
from app.api.routes import BodyLimit, Route, takes
from app.api.uploads.accepting import create_dataset_of
from app.api.views import dataset_views, problems
from app.datasets import service as datasets
from app.datasets.schemas import DatasetOut
from app.datasets.sources.references import ImportRequest, check_import

router = APIRouter(tags=["datasets"], route_class=Route)


@router.post(
    "/v1/datasets:import",
    status_code=202,
    response_model=DatasetOut,
    responses=problems(400, 409, 413, 422, 429),
    summary="Create a dataset from images elsewhere",
)
@takes(BodyLimit("max_import_bytes", values=1_000_000))
def import_dataset(body: ImportRequest, services: ServicesDep, writer: Writer, key: IdempotencyKey = None) -> Any:
    """Import images from https URLs with labels, from a bucket prefix, or from a folder on the workers' machines. The
    operator must allow the last two. An image that cannot be fetched is left out and named in the dataset's report."""
    settings = services.settings
    kind, document, place = check_import(body, settings)
    # Before the transaction: were it to fail, the garbage collector finds a blob that nothing refers to.
    upload = datasets.Upload(services.store.put_bytes(document), kind, place)

    with services.database.writing() as session:

        def create() -> JSONResponse:
            quota = datasets.quota(session, writer.workspace_id, settings.max_workspace_bytes)
            quota.check(1)
            max_bytes = min(quota.limit - quota.held, settings.max_expanded_bytes)
            dataset = create_dataset_of(session, services, writer.workspace_id, body, upload, max_bytes)
            (view,) = dataset_views(session, [dataset])
            location = {"Location": f"/v1/datasets/{dataset.id}"}
            return JSONResponse(view.model_dump(mode="json"), status_code=202, headers=location)

        request_sha256 = fingerprint("POST /v1/datasets:import", body.model_dump())
        return answer_once(session, writer.workspace_id, key, request_sha256, create)
