"""Datasets: upload labelled images, watch them being read, list, delete."""

import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import Field
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
from app.api.uploads import ReceivedFile, receive_file
from app.api.views import ListOut, dataset_views, problems
from app.api.waiting import until
from app.auth.service import Principal
from app.datasets import content
from app.datasets import service as datasets
from app.datasets.archive import detect_format, names
from app.datasets.described import may_describe
from app.datasets.layout import check_layout, read_layout
from app.datasets.limits import archive_limits
from app.datasets.orm import DatasetState
from app.datasets.report import report_on
from app.datasets.schemas import DatasetOut, DatasetReport, SplitOptions
from app.jobs import service as jobs

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "description": "A zip, tar, tar.gz or tar.zst: `class/image.jpg`, or `train/class/…`, `val/class/…`, "
        "`test/class/…`; or images with `labels.csv`, `labels.jsonl`, COCO or VOC annotations.",
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


class UploadOptions(SplitOptions):
    """What to call the dataset, and how to divide it where the upload brings no `val` split."""

    name: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$",
        description="Unique in the workspace; the file's name, or a part of its hash, if left out.",
    )


@router.post(
    "",
    status_code=202,
    response_model=DatasetOut,
    responses=problems(409, 413, 415, 422, 429),
    openapi_extra=_UPLOAD_BODY,
    summary="Upload a dataset",
)
async def create_dataset(
    request: Request,
    services: ServicesDep,
    writer: Writer,
    options: Annotated[UploadOptions, Query()],
    key: IdempotencyKey = None,
) -> Any:
    """Send the archive as the body (`curl -X POST -T pets.zip`) or as a form (`curl -F file=@pets.zip`).

    The layout is checked before this call answers; the images are then verified one by one, which
    `GET /v1/datasets/{id}?wait=60` waits for.
    """
    if options.name and key is None:
        await run_in_threadpool(_refuse_taken_name, services, writer, options.name)
    async with receive_file(request, services.settings.scratch, services.settings.max_upload_bytes) as received:
        return await run_in_threadpool(_accept, services, writer, options, key, received)


@router.put(
    "/{dataset_id}",
    status_code=202,
    response_model=DatasetOut,
    responses=problems(404, 409, 413, 415, 422),
    openapi_extra=_UPLOAD_BODY,
    summary="Upload a dataset under a name",
)
async def put_dataset(
    dataset_id: Annotated[
        str, PathParameter(description="The file's name.", max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    ],
    request: Request,
    services: ServicesDep,
    writer: Writer,
    split: Annotated[SplitOptions, Query()],
) -> Any:
    """`curl -T pets.zip "$GRAFT_URL/v1/datasets/"`, which puts the file's name behind the slash; the dataset is called
    `pets`. Otherwise as `POST /v1/datasets`: what is there under that name is not replaced."""
    name = dataset_id.split(".")[0]
    options = UploadOptions.model_validate({**split.model_dump(), "name": name})
    return await create_dataset(request, services, writer, options)


def _refuse_taken_name(services: Services, writer: Principal, name: str) -> None:
    """Before gigabytes arrive; the transaction that creates the dataset checks for good."""
    with services.database.reading() as session:
        if datasets.is_name_taken(session, writer.workspace_id, name):
            raise datasets.name_taken(name)


def _accept(
    services: Services, writer: Principal, options: UploadOptions, key: str | None, received: ReceivedFile
) -> JSONResponse:
    archive_format = detect_format(received.path)
    found = [entry.name for entry in names(received.path, archive_limits(services.settings))]
    if not any(map(may_describe, found)):  # a file of labels is read where the images are, in a bounded process
        check_layout(read_layout(found))
    name = options.name or _default_name(received)
    # Before the transaction: were it to fail, the garbage collector finds a blob that nothing refers to.
    upload = datasets.Upload(services.store.put_file(received.path), archive_format, received.filename)

    with services.database.writing() as session:

        def create() -> JSONResponse:
            datasets.check_quota(session, writer.workspace_id, received.size, services.settings.max_workspace_bytes)
            dataset = datasets.create(session, writer.workspace_id, name, upload)
            split = SplitOptions.model_validate(options.model_dump(exclude={"name"}))
            limits = services.settings.max_attempts, services.settings.max_queued_jobs
            jobs.submit_ingestion(session, services.doorbell, dataset, split, *limits)
            (view,) = dataset_views(session, [dataset])
            location = {"Location": f"/v1/datasets/{dataset.id}"}
            return JSONResponse(view.model_dump(mode="json"), status_code=202, headers=location)

        request_sha256 = fingerprint("POST /v1/datasets", options.model_dump(), received.sha256)
        return answer_once(session, writer.workspace_id, key, request_sha256, create)


def _default_name(received: ReceivedFile) -> str:
    stem = Path(received.filename or "").name.split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100]
    return plain or f"dataset-{received.sha256[:8]}"


@router.get("", responses=problems(422), summary="List datasets")
def list_datasets(
    reader: Reader, session: ReadSession, limit: Limit = 50, cursor: Cursor = None, name: str | None = None
) -> ListOut[DatasetOut]:
    page = datasets.list_datasets(session, reader.workspace_id, name=name, limit=limit, cursor=cursor)
    return ListOut(items=dataset_views(session, page.items), next_cursor=page.next_cursor)


@router.get("/{dataset_id}", responses=problems(404), summary="Look at a dataset")
async def get_dataset(dataset_id: str, reader: Reader, services: ServicesDep, wait: Wait = 0) -> DatasetOut:
    """By id or by name. With `wait`, the answer comes when the upload has been read, or after that many seconds."""

    def look() -> DatasetOut:
        with services.database.reading() as session:
            (view,) = dataset_views(session, [datasets.get(session, reader.workspace_id, dataset_id)])
            return view

    return await until(look, lambda view: view.state is not DatasetState.processing, wait)


@router.get("/{dataset_id}/report", responses=problems(404, 409), summary="Report on a dataset")
def get_report(dataset_id: str, reader: Reader, session: ReadSession) -> DatasetReport:
    """Of the dataset as it is now: its shape, and what would spoil a training, each finding with the images it is
    about, a severity and a remedy."""
    dataset = content.check_ready(datasets.get(session, reader.workspace_id, dataset_id))
    return report_on(content.all_images(session, dataset), dataset.report or {})


@router.delete("/{dataset_id}", status_code=204, responses=problems(404, 409), summary="Delete a dataset")
def delete_dataset(dataset_id: str, writer: Writer, session: WriteSession) -> Response:
    """Its images are freed unless another dataset holds them. Models trained on it stay."""
    dataset = datasets.get(session, writer.workspace_id, dataset_id)
    jobs.release_dataset(session, dataset)
    datasets.delete(session, dataset)
    return Response(status_code=204)
