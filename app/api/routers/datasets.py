"""Upload, list, show, report on and delete datasets."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from app.api.deps import (
    Cursor,
    IdempotencyKey,
    Limit,
    Reader,
    ReadSession,
    Services,
    ServicesDep,
    Wait,
    Writer,
    WriteSession,
)
from app.api.idempotency import answer_once, fingerprint
from app.api.routes import FORM, Route, takes
from app.api.uploads.accepting import create_dataset_of, keep_archive, refuse_taken_name
from app.api.uploads.receiving import Limits, ReceivedFile, receive_file
from app.api.views import ListOut, dataset_views, problems
from app.api.waiting import until
from app.auth.service import Principal
from app.datasets import images as dataset_images
from app.datasets import service as datasets
from app.datasets.report import report_on
from app.datasets.schemas import DatasetOut, DatasetReport, SplitOptions, UploadOptions
from app.datasets.states import DatasetState
from app.jobs import service as jobs
from app.registry.mislabels import likely_mislabels

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=Route)

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "description": "A zip, tar, tar.gz or tar.zst that holds `class/image.jpg`, or `train/class/…`, `val/class/…`, "
        "`test/class/…`, or images with `labels.csv`, `labels.jsonl`, COCO or VOC annotations.",
        "content": {
            "application/zip": _BINARY,
            "application/x-tar": _BINARY,
            "application/gzip": _BINARY,
            "application/zstd": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                },
                "example": {"file": "@pets.zip"},
            },
        },
    }
}


@router.post(
    "",
    status_code=202,
    response_model=DatasetOut,
    responses=problems(409, 413, 415, 422, 429),
    openapi_extra=_UPLOAD_BODY,
    summary="Upload a dataset",
)
@takes(FORM)
async def create_dataset(
    request: Request,
    services: ServicesDep,
    writer: Writer,
    options: Annotated[UploadOptions, Query()],
    key: IdempotencyKey = None,
) -> Any:
    """Send the archive as the body (`curl -X POST -T pets.zip`) or as a form (`curl -F file=@pets.zip`).

    The layout is checked before the response. Then a job checks the images one by one, and
    `GET /v1/datasets/{id}?wait=60` waits for its end.
    """
    settings = services.settings
    quota = datasets.Quota(0, settings.max_workspace_bytes)
    if key is None:  # under a key what is there already may be this call's own
        quota = await run_in_threadpool(_before_it_arrives, services, writer, options.name)
    limits = Limits(settings.max_upload_bytes, quota, settings.min_free_bytes)
    async with receive_file(request, settings.scratch, limits) as received:
        return await run_in_threadpool(_accept, services, writer, options, key, received)


@router.put(
    "/{dataset_id}",
    status_code=202,
    response_model=DatasetOut,
    responses=problems(404, 409, 413, 415, 422),
    openapi_extra=_UPLOAD_BODY,
    summary="Upload a dataset under a name",
)
@takes(FORM)
async def put_dataset(
    dataset_id: Annotated[
        str, PathParameter(description="The file's name.", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    ],
    request: Request,
    services: ServicesDep,
    writer: Writer,
    split: Annotated[SplitOptions, Query()],
) -> Any:
    """Upload with `curl -T pets.zip "$GRAFT_URL/v1/datasets/"`: curl puts the file's name behind the slash, and the
    dataset is called `pets`. A dataset that has this name is not replaced. All else is as in `POST /v1/datasets`."""
    name = dataset_id.split(".")[0]
    options = UploadOptions.model_validate({**split.model_dump(), "name": name})
    return await create_dataset(request, services, writer, options)


def _before_it_arrives(services: Services, writer: Principal, name: str | None) -> datasets.Quota:
    """Refuse a taken name and return the workspace's quota, before gigabytes arrive.

    The transaction that creates the dataset checks both again.
    """
    with services.database.reading() as session:
        if name is not None:
            refuse_taken_name(session, writer.workspace_id, name)
        return datasets.quota(session, writer.workspace_id, services.settings.max_workspace_bytes)


def _accept(
    services: Services, writer: Principal, options: UploadOptions, key: str | None, received: ReceivedFile
) -> JSONResponse:
    upload = keep_archive(services, received)

    with services.database.writing() as session:

        def create() -> JSONResponse:
            datasets.quota(session, writer.workspace_id, services.settings.max_workspace_bytes).check(received.size)
            dataset = create_dataset_of(session, services, writer.workspace_id, options, upload)
            (view,) = dataset_views(session, [dataset])
            location = {"Location": f"/v1/datasets/{dataset.id}"}
            return JSONResponse(view.model_dump(mode="json"), status_code=202, headers=location)

        request_sha256 = fingerprint("POST /v1/datasets", options.model_dump(), received.sha256)
        return answer_once(session, writer.workspace_id, key, request_sha256, create)


@router.get("", responses=problems(422), summary="List datasets")
def list_datasets(
    reader: Reader, session: ReadSession, limit: Limit = 50, cursor: Cursor = None, name: str | None = None
) -> ListOut[DatasetOut]:
    page = datasets.list_datasets(session, reader.workspace_id, name=name, limit=limit, cursor=cursor)
    return ListOut(items=dataset_views(session, page.items), next_cursor=page.next_cursor)


@router.get("/{dataset_id}", responses=problems(404), summary="Get a dataset")
async def get_dataset(dataset_id: str, reader: Reader, services: ServicesDep, wait: Wait = 0) -> DatasetOut:
    """Get a dataset by id or name. With `wait`, the response comes when the upload has been read, or after that many
    seconds."""

    def look() -> DatasetOut:
        with services.database.reading() as session:
            (view,) = dataset_views(session, [datasets.get(session, reader.workspace_id, dataset_id)])
            return view

    return await until(look, lambda view: view.state is not DatasetState.processing, wait, services.draining)


@router.get("/{dataset_id}/report", responses=problems(404, 409), summary="Report on a dataset")
def get_report(dataset_id: str, reader: Reader, services: ServicesDep, session: ReadSession) -> DatasetReport:
    """Describe the dataset as it is now: counts, sizes and findings that would spoil a training, each with a severity,
    a remedy and its images. If a model was trained on the dataset, the newest one finds likely mislabels."""
    dataset = dataset_images.check_ready(datasets.get(session, reader.workspace_id, dataset_id))
    images = dataset_images.all_images(session, dataset)
    opinions = likely_mislabels(session, services.store, reader.workspace_id, dataset, images)
    return report_on(images, dataset.report or {}, opinions)


@router.delete("/{dataset_id}", status_code=204, responses=problems(404, 409), summary="Delete a dataset")
def delete_dataset(dataset_id: str, writer: Writer, session: WriteSession) -> Response:
    """Delete a dataset and its images, except those that another dataset holds. Models trained on it stay."""
    dataset = datasets.get(session, writer.workspace_id, dataset_id)
    jobs.release_dataset(session, dataset)
    datasets.delete(session, dataset)
    return Response(status_code=204)
