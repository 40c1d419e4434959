"""Show, add, relabel, move and remove a dataset's images, one by one or in batches."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from app.api.deps import Cursor, Limit, Reader, ReadSession, Services, ServicesDep, Writer, WriteSession
from app.api.routes import FORM, Route, takes
from app.api.uploads.forms import add_batch, read_batch
from app.api.views import ListOut, problems
from app.datasets import images as dataset_images
from app.datasets import service as datasets
from app.datasets.intake.thumbnails import MAX_SIDE, media_type, thumbnail
from app.datasets.schemas import AddedOut, ImageChange, ImageOut
from app.vision.data.folder_names import Split

router = APIRouter(prefix="/v1/datasets/{dataset_id}/images", tags=["datasets"], route_class=Route)

Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="The image's SHA-256.")]
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_IMAGE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": _BINARY, "image/png": _BINARY}, "description": "The image"}
}
# An image's bytes never change under its hash. No browser may take them for anything but a picture.
_HEADERS = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}
_BATCH_BODY = {
    "requestBody": {
        "required": True,
        "description": "Any number of parts `file`. `labels` is a JSON list with one object for each file, in order: "
        "`label`, and optionally `split` and `metadata`. Without it the query's `label` and `split` apply to all.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "labels": {"type": "string"},
                    },
                },
                "example": {"file": ["@a.jpg", "@b.jpg"], "labels": '[{"label": "ants"}, {"label": "bees"}]'},
            }
        },
    }
}


@router.get("", responses=problems(404, 409, 422), summary="List a dataset's images")
def list_images(
    dataset_id: str,
    reader: Reader,
    session: ReadSession,
    limit: Limit = 50,
    cursor: Cursor = None,
    label: Annotated[str | None, Query(max_length=255)] = None,
    split: Split | None = None,
) -> ListOut[ImageOut]:
    """List the images of the dataset as it is now; its versions can hold others."""
    dataset = dataset_images.check_ready(datasets.get(session, reader.workspace_id, dataset_id))
    page = dataset_images.list_images(session, dataset, label=label, split=split, limit=limit, cursor=cursor)
    return ListOut(items=[ImageOut.model_validate(image) for image in page.items], next_cursor=page.next_cursor)


@router.post(
    "",
    response_model=AddedOut,
    responses={
        207: {"model": AddedOut, "description": "Some files could not be added"},
        **problems(404, 409, 413, 422),
    },
    openapi_extra=_BATCH_BODY,
    summary="Add images",
)
@takes(FORM)
async def add_images(
    dataset_id: str,
    request: Request,
    services: ServicesDep,
    writer: Writer,
    label: Annotated[str | None, Query(max_length=255, description="Label of all files, without `labels`.")] = None,
    split: Annotated[Split, Query(description="Split of all files for which `labels` names none.")] = "train",
) -> Any:
    """Send images as form parts: `curl -F file=@a.jpg -F file=@b.jpg '…/images?label=ants'`. If one of several files
    cannot be used, it gets its own `error` and the response is a 207. The next version will hold the images."""
    await run_in_threadpool(_find_ready, services, writer.workspace_id, dataset_id)
    async with read_batch(request, services.settings, label, split) as files:
        answer = await run_in_threadpool(add_batch, services, writer.workspace_id, dataset_id, files)
    partial = any(item.status == "error" for item in answer.items)
    return JSONResponse(answer.model_dump(mode="json"), status_code=207 if partial else 200)


def _find_ready(services: Services, workspace_id: UUID, dataset_id: str) -> None:
    with services.database.reading() as session:
        dataset_images.check_ready(datasets.get(session, workspace_id, dataset_id))


@router.get("/{sha256}", responses=problems(404, 422), summary="Get an image's description")
def get_image(dataset_id: str, sha256: Sha256, reader: Reader, session: ReadSession) -> ImageOut:
    dataset = datasets.get(session, reader.workspace_id, dataset_id)
    return ImageOut.model_validate(dataset_images.get_image(session, dataset, sha256))


@router.get(
    "/{sha256}/file",
    response_class=Response,
    responses={**_IMAGE, **problems(404, 422)},
    summary="Get an image's bytes",
)
def get_file(dataset_id: str, sha256: Sha256, reader: Reader, services: ServicesDep) -> Response:
    """Get the stored image: a JPEG or a PNG, upright, without metadata."""
    data = _read(services, reader.workspace_id, dataset_id, sha256)
    return Response(data, media_type=media_type(data), headers={**_HEADERS, "ETag": f'"{sha256}"'})


@router.get(
    "/{sha256}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": _BINARY}, "description": "A JPEG"}, **problems(404, 422)},
    summary="Get a thumbnail",
)
def get_thumbnail(
    dataset_id: str,
    sha256: Sha256,
    reader: Reader,
    services: ServicesDep,
    size: Annotated[int, Query(ge=16, le=MAX_SIDE, description="Length of the longer side in pixels.")] = 128,
) -> Response:
    data = _read(services, reader.workspace_id, dataset_id, sha256)
    headers = {**_HEADERS, "ETag": f'"{sha256}-{size}"'}
    return Response(thumbnail(data, size), media_type="image/jpeg", headers=headers)


def _read(services: Services, workspace_id: UUID, dataset_id: str, sha256: str) -> bytes:
    with services.database.reading() as session:
        dataset_images.get_image(session, datasets.get(session, workspace_id, dataset_id), sha256)
    return services.store.read(sha256)


@router.patch("/{sha256}", responses=problems(400, 404, 409, 422), summary="Relabel or move an image")
def change_image(dataset_id: str, sha256: Sha256, body: ImageChange, writer: Writer, session: WriteSession) -> ImageOut:
    """Change an image's label, split or metadata. Existing versions keep it as it was; the next one has the change."""
    dataset = dataset_images.check_ready(datasets.get(session, writer.workspace_id, dataset_id, lock=True))
    image = dataset_images.get_image(session, dataset, sha256)
    changes = body.model_dump(exclude_unset=True)
    dataset_images.change_image(
        session, image, {name: one for name, one in changes.items() if one or name == "metadata"}
    )
    return ImageOut.model_validate(image)


@router.delete("/{sha256}", status_code=204, responses=problems(404, 409, 422), summary="Remove an image")
def remove_image(dataset_id: str, sha256: Sha256, writer: Writer, session: WriteSession) -> Response:
    """Remove an image from the dataset. Existing versions keep it."""
    dataset = dataset_images.check_ready(datasets.get(session, writer.workspace_id, dataset_id, lock=True))
    dataset_images.remove_image(session, dataset_images.get_image(session, dataset, sha256))
    return Response(status_code=204)
