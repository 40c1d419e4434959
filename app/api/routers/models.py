"""Models: what training made; classify images with them."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app.api.deps import Cursor, Limit, Predictor, Reader, ReadSession, Services, ServicesDep, Writer, WriteSession
from app.api.views import ListOut, problems
from app.core.errors import FieldError, Invalid, Malformed, UnsupportedMedia
from app.datasets.limits import intake_limits
from app.predictions import service as predictions
from app.predictions.schemas import PredictOut
from app.predictions.service import ModelReference, SentImage
from app.registry import service as registry
from app.registry.schemas import ModelOut

router = APIRouter(prefix="/v1/models", tags=["models"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_IMAGES_BODY = {
    "requestBody": {
        "required": True,
        "description": "One image as the body, or any number of form parts named `file`.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                },
                "example": {"file": ["@cat.jpg", "@dog.jpg"]},
            },
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "image/webp": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}


@router.get("", responses=problems(422), summary="List models")
def list_models(
    reader: Reader, session: ReadSession, limit: Limit = 50, cursor: Cursor = None, name: str | None = None
) -> ListOut[ModelOut]:
    page = registry.list_models(session, reader.workspace_id, name=name, limit=limit, cursor=cursor)
    return ListOut(items=[ModelOut.model_validate(model) for model in page.items], next_cursor=page.next_cursor)


@router.get("/{model_id}", responses=problems(404, 422), summary="Look at a model")
def get_model(model_id: UUID, reader: Reader, session: ReadSession) -> ModelOut:
    return ModelOut.model_validate(registry.get(session, reader.workspace_id, model_id))


@router.delete("/{model_id}", status_code=204, responses=problems(404, 422), summary="Delete a model")
def delete_model(model_id: UUID, writer: Writer, session: WriteSession) -> Response:
    registry.delete(session, registry.get(session, writer.workspace_id, model_id))
    return Response(status_code=204)


@router.post(
    "/{model_id}/predict",
    response_model=PredictOut,
    responses={
        207: {"model": PredictOut, "description": "Some images could not be read"},
        **problems(404, 413, 415, 422),
    },
    openapi_extra=_IMAGES_BODY,
    summary="Classify images",
)
async def predict(
    model_id: UUID,
    request: Request,
    predictor: Predictor,
    services: ServicesDep,
    top_k: Annotated[int, Query(ge=1, le=1000, description="How many classes to name, most probable first.")] = 5,
) -> Any:
    """`curl --data-binary @x.jpg -H 'Content-Type: image/jpeg'`, or `curl -F file=@a.jpg -F file=@b.jpg`.

    Of several images an unreadable one has its own `error` and the answer is a 207. Nothing is stored.
    """
    images = await _read_images(request, services.settings.max_predict_files)
    model = await run_in_threadpool(_find, services, predictor.workspace_id, model_id)
    limits = intake_limits(services.settings)
    answer = await run_in_threadpool(predictions.predict, services.models, model, images, top_k=top_k, limits=limits)
    partial = any(item.status == "error" for item in answer.items)
    return JSONResponse(answer.model_dump(mode="json"), status_code=207 if partial else 200)


def _find(services: Services, workspace_id: UUID, model_id: UUID) -> ModelReference:
    with services.database.reading() as session:
        model = registry.get(session, workspace_id, model_id)
        return ModelReference(model.id, model.artefact_sha256)


async def _read_images(request: Request, max_files: int) -> list[SentImage]:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        images = await _read_form(request, max_files)
    elif content_type.startswith("image/") or content_type in ("", "application/octet-stream"):
        data = await request.body()
        images = [SentImage(data, None)] if data else []
    else:
        detail = (
            f"A body of type {content_type!r} is not an image. Send -H 'Content-Type: image/jpeg' with "
            "--data-binary @x.jpg, or a form with -F file=@x.jpg."
        )
        raise UnsupportedMedia(detail, errors=[FieldError("Content-Type", detail, "unsupported_media_type")])
    if not images:
        detail = "No image was sent. Send --data-binary @x.jpg with its Content-Type, or -F file=@x.jpg."
        raise Invalid(detail, code="no_image", errors=[FieldError("file", detail, "no_image")])
    return images


async def _read_form(request: Request, max_files: int) -> list[SentImage]:
    try:
        async with request.form(max_files=max_files, max_fields=8) as form:
            return [await _read_part(name, part) for name, part in form.multi_items()]
    except HTTPException as error:
        if error.status_code != 400:
            raise
        raise _bad_form(error.detail, max_files) from None


async def _read_part(name: str, part: UploadFile | str) -> SentImage:
    if name != "file" or not isinstance(part, UploadFile):
        detail = f"There is no form field {name!r}: each image is a file part named 'file'."
        raise Invalid(detail, errors=[FieldError(name, detail, "unknown_field")])
    return SentImage(await part.read(), part.filename)


def _bad_form(why: str, max_files: int) -> Invalid | Malformed:
    """Starlette's refusal of a form, in our own words."""
    if why.startswith("Too many files"):
        detail = f"More than {max_files} images. Send them in several calls, or raise GRAFT_MAX_PREDICT_FILES."
        return Invalid(detail, code="too_many_files", errors=[FieldError("file", detail, "too_many_files")])
    detail = f"The form cannot be read ({why.rstrip('.')}). Send it with curl -F file=@a.jpg -F file=@b.jpg."
    return Malformed(detail, errors=[FieldError("body", detail, "malformed")])
