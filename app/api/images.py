"""Read the images of a predict call: one as the body, several as form parts, or JSON with base64 and stored ids."""

from collections.abc import Callable, Sequence
from functools import partial

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from app.api.routes import PARSED_HERE, check_values
from app.core.errors import FieldError, Invalid, Malformed, UnsupportedMedia
from app.datasets.service import unknown_image
from app.predictions.schemas import JsonImage, PredictOptions, PredictRequest
from app.predictions.service import SentImage

_BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGES_BODY = {
    "requestBody": {
        "required": True,
        "description": "One image as the body, any number of form parts named `file`, or JSON.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                },
                "example": {"file": ["@cat.jpg", "@dog.jpg"]},
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/PredictRequest"}},
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "image/webp": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}

ReadStored = Callable[[str], bytes]  # a blob's bytes by its SHA-256
FindStored = Callable[[Sequence[str]], dict[str, str]]  # SHA-256 by reference, of those that there are


async def read_images(
    request: Request, options: PredictOptions, max_files: int
) -> tuple[list[SentImage | JsonImage], PredictOptions]:
    """Return the images of the body and the call's options, which a JSON body can override.

    Images that are named by id are returned as `JsonImage`, for `resolve` to find.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "multipart/form-data":
        images: list[SentImage | JsonImage] = list(await _read_form(request, max_files))
    elif content_type == "application/json":
        body = await request.body()
        check_values(body)
        if len(body) <= PARSED_HERE:
            return _read_json(body, options, max_files)
        return await run_in_threadpool(_read_json, body, options, max_files)
    elif content_type.startswith("image/") or content_type in ("", "application/octet-stream"):
        data = await request.body()
        images = [_sent(data, None)] if data else []
    else:
        detail = (
            f"A body of type {content_type!r} is not an image. Send -H 'Content-Type: image/jpeg' with "
            "--data-binary @x.jpg, a form with -F file=@x.jpg, or application/json."
        )
        raise UnsupportedMedia(detail, errors=[FieldError("Content-Type", detail, "unsupported_media_type")])
    if not images:
        detail = "No image was sent. Send --data-binary @x.jpg with its Content-Type, or -F file=@x.jpg."
        raise Invalid(detail, code="no_image", errors=[FieldError("file", detail, "no_image")])
    return images, options


def resolve(images: Sequence[SentImage | JsonImage], find: FindStored, read: ReadStored) -> list[SentImage]:
    """Return the images in order. Reading a stored image that does not exist raises an error for that image alone."""
    wanted = [image.id for image in images if isinstance(image, JsonImage) and image.id is not None]
    found = find(wanted) if wanted else {}
    return [
        image
        if isinstance(image, SentImage)
        else SentImage(_reader(str(image.id), found.get(str(image.id)), read), image.name or image.id)
        for image in images
    ]


def _reader(reference: str, sha256: str | None, read: ReadStored) -> Callable[[], bytes]:
    if sha256 is not None:
        return partial(read, sha256)

    def refuse() -> bytes:
        raise unknown_image(reference)

    return refuse


def _sent(data: bytes, name: str | None) -> SentImage:
    return SentImage(lambda: data, name)


def _read_json(
    body: bytes, options: PredictOptions, max_files: int
) -> tuple[list[SentImage | JsonImage], PredictOptions]:
    try:
        asked = PredictRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(
            [one | {"loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        ) from None
    if len(asked.images) > max_files:
        raise _too_many(max_files, "images")
    given = asked.model_dump(exclude={"images"}, exclude_unset=True)
    images = [image if image.base64 is None else _sent(image.base64, image.name) for image in asked.images]
    return images, options.model_copy(update=given)


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
        detail = f"There is no form field {name!r}. Send each image as a file part named 'file'."
        raise Invalid(detail, errors=[FieldError(name, detail, "unknown_field")])
    return _sent(await part.read(), part.filename)


def _bad_form(why: str, max_files: int) -> Invalid | Malformed:
    """Return our error for a form that Starlette refused, and `why` it did."""
    if why.startswith("Too many files"):
        return _too_many(max_files, "file")
    detail = f"The form cannot be read ({why.rstrip('.')}). Send it with curl -F file=@a.jpg -F file=@b.jpg."
    return Malformed(detail, errors=[FieldError("body", detail, "malformed")])


def _too_many(max_files: int, field: str) -> Invalid:
    detail = f"More than {max_files} images. Send them in several calls, or raise GRAFT_MAX_PREDICT_FILES."
    return Invalid(detail, code="too_many_files", errors=[FieldError(field, detail, "too_many_files")])
