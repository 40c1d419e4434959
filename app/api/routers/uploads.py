"""Receive resumable uploads by tus 1.0: a file comes in several requests and becomes a dataset."""

from contextlib import suppress
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from app.api.deps import IdempotencyKey, Reader, ReadSession, Services, ServicesDep, Writer
from app.api.idempotency import answer_once, fingerprint
from app.api.routes import BodyLimit, Route, takes
from app.api.uploads import tus
from app.api.uploads.accepting import create_dataset_of, keep_archive, refuse_taken_name
from app.api.uploads.chunks import Piece, held
from app.api.uploads.receiving import Limits, ReceivedFile, too_large
from app.api.views import problems
from app.auth.service import Principal
from app.core.errors import Conflict, FieldError, Invalid, TooLarge, UnsupportedMedia
from app.datasets import service as datasets
from app.datasets import uploads
from app.datasets.orm import ResumableUpload
from app.datasets.schemas import UploadOptions, UploadOut
from app.storage.disk import check_free, disk_errors_explained

router = APIRouter(prefix=tus.PATH, tags=["uploads"], route_class=Route)

# This stands after the caller in each signature, so that the key is checked before the protocol's version.
Version = Annotated[None, Depends(tus.check_version)]
_PIECE = {
    "requestBody": {
        "required": True,
        "description": "The bytes that follow the offset, to the end of the file or fewer.",
        "content": {tus.CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.options("", status_code=204, responses=problems(), summary="Get the protocol extensions of resumable uploads")
def describe(writer: Writer, services: ServicesDep) -> Response:
    headers = {
        "Tus-Extension": tus.EXTENSIONS,
        "Tus-Max-Size": str(services.settings.max_upload_bytes),
        "Tus-Checksum-Algorithm": ",".join(tus.CHECKSUMS),
    }
    return Response(status_code=204, headers=headers)


@router.post(
    "",
    status_code=201,
    response_model=UploadOut,
    responses=problems(409, 412, 413, 422),
    summary="Begin a resumable upload",
)
def create_upload(
    writer: Writer,
    version: Version,
    services: ServicesDep,
    length: Annotated[int, Header(alias="Upload-Length", ge=1, le=2**60, description="Bytes of the whole file.")],
    metadata: Annotated[
        str | None,
        Header(
            alias="Upload-Metadata",
            max_length=8192,
            description="`key Base64,…` with `name`, `filename`, `val_fraction`, `test_fraction`, `seed`, as for "
            "`POST /v1/datasets`, and `sha256`: the hash of the whole file, in hexadecimal digits.",
        ),
    ] = None,
    key: IdempotencyKey = None,
) -> Any:
    """Begin an upload. Send the bytes to the response's `Location` with PATCH, as any client of tus 1.0 does."""
    settings = services.settings
    said = tus.read_metadata(metadata)
    if length > settings.max_upload_bytes:
        raise too_large(settings.max_upload_bytes)
    uploads.remove_expired(services.database, settings.uploads)
    with disk_errors_explained(settings.uploads):
        settings.uploads.mkdir(parents=True, exist_ok=True)
    check_free(settings.uploads, settings.min_free_bytes, length)
    with services.database.writing() as session:

        def create() -> JSONResponse:
            if said.options.name is not None:
                refuse_taken_name(session, writer.workspace_id, said.options.name)
            datasets.quota(session, writer.workspace_id, settings.max_workspace_bytes).check(length)
            upload = uploads.create(
                session,
                writer.workspace_id,
                length=length,
                filename=said.filename,
                sha256=said.sha256,
                options=said.options.model_dump(),
                expiry_seconds=settings.upload_expiry_seconds,
            )
            headers = {"Location": f"{tus.PATH}/{upload.id}", "Upload-Expires": tus.http_date(upload.expires_at)}
            view = UploadOut.model_validate(upload).model_dump(mode="json")
            return JSONResponse(view, status_code=201, headers=headers)

        request_sha256 = fingerprint(f"POST {tus.PATH}", length, metadata)
        return answer_once(session, writer.workspace_id, key, request_sha256, create)


@router.head("/{upload_id}", include_in_schema=False)
def get_offset(upload_id: UUID, reader: Reader, version: Version, session: ReadSession) -> Response:
    """Return the number of bytes received, from which the sender continues. After the last byte `Location` is the
    dataset."""
    upload = uploads.get(session, reader.workspace_id, upload_id)
    return Response(headers={**_progress(upload), "Upload-Length": str(upload.length)})


@router.get("/{upload_id}", responses=problems(404, 422), summary="Get a resumable upload")
def get_upload(upload_id: UUID, reader: Reader, session: ReadSession) -> UploadOut:
    """Get the values that HEAD has in `Upload-Offset`, `Upload-Length` and `Upload-Expires`."""
    return UploadOut.model_validate(uploads.get(session, reader.workspace_id, upload_id))


@router.delete(
    "/{upload_id}",
    status_code=204,
    responses=problems(404, 412, 422),
    summary="End a resumable upload",
)
def end_upload(upload_id: UUID, writer: Writer, version: Version, services: ServicesDep) -> Response:
    """End an upload and remove its bytes. A dataset that was created from it stays."""
    with services.database.writing() as session:
        uploads.end(session, uploads.get(session, writer.workspace_id, upload_id, lock=True).id)
    _remove_file(services, upload_id)
    return Response(status_code=204)


@router.patch(
    "/{upload_id}",
    status_code=204,
    responses=problems(400, 404, 409, 412, 413, 415, 422, 423, 429, 460),
    openapi_extra=_PIECE,
    summary="Send bytes of a resumable upload",
)
@takes(BodyLimit("max_upload_bytes"))
async def append(
    upload_id: UUID,
    request: Request,
    writer: Writer,
    version: Version,
    services: ServicesDep,
    offset: Annotated[
        int, Header(alias="Upload-Offset", ge=0, le=2**60, description="Position of the body's first byte in the file.")
    ],
    content_type: Annotated[str | None, Header(include_in_schema=False)] = None,
    checksum: Annotated[
        str | None,
        Header(
            alias="Upload-Checksum",
            max_length=200,
            description="`sha256 Base64` or `sha1 Base64`: the hash of the body.",
        ),
    ] = None,
) -> Response:
    """Send bytes. With the last byte the archive's layout is checked and the dataset is created, as by
    `POST /v1/datasets`; the response's `Location` is then the dataset."""
    tus.check_content_type(content_type)
    expected = tus.read_checksum(checksum)
    folder, silence = services.settings.uploads, services.settings.upload_silence_seconds
    await run_in_threadpool(_find, services, writer, upload_id)  # before a file is made
    with held(folder, upload_id, silence) as file:
        upload, quota = await run_in_threadpool(_find, services, writer, upload_id)
        _check_offset(upload, offset)
        limits = Limits(upload.length, quota, services.settings.min_free_bytes)
        check_free(folder, limits.min_free, upload.length - offset)

        def save(received: int) -> None:
            _advance(services, writer, upload_id, received)

        digest = await run_in_threadpool(services.hashes.take, upload_id, offset, file)
        piece = Piece(file, folder, offset, upload.length, limits, digest, save, silence)
        try:
            await piece.receive(request, expected)
            if piece.size == upload.length:
                sha256 = piece.digest.hexdigest()
                return await run_in_threadpool(_accept, services, writer, upload, sha256)
        finally:
            services.hashes.keep(upload_id, piece.size, piece.digest)
    upload, _ = await run_in_threadpool(_find, services, writer, upload_id)
    return Response(status_code=204, headers=_progress(upload))


def _find(services: Services, writer: Principal, upload_id: UUID) -> tuple[ResumableUpload, datasets.Quota]:
    with services.database.reading() as session:
        upload = uploads.get(session, writer.workspace_id, upload_id)
        limit = services.settings.max_workspace_bytes
        return upload, datasets.quota(session, writer.workspace_id, limit, besides=upload_id)


def _check_offset(upload: ResumableUpload, offset: int) -> None:
    if upload.dataset_id is not None or offset != upload.received:
        detail = (
            f"Upload-Offset is {offset}, but {upload.received} of {upload.length} bytes have arrived. Send the bytes "
            f"from offset {upload.received} on."
        )
        raise Conflict(detail, code="wrong_offset", errors=[FieldError("Upload-Offset", detail, "wrong_offset")])


def _advance(services: Services, writer: Principal, upload_id: UUID, received: int) -> None:
    with services.database.writing() as session:
        uploads.advance(session, writer.workspace_id, upload_id, received, services.settings.upload_expiry_seconds)


def _accept(services: Services, writer: Principal, upload: ResumableUpload, sha256: str) -> Response:
    """Create the dataset when all bytes are there. An archive that cannot become a dataset is removed; after any other
    error its sender may send the last byte again."""
    path = services.settings.uploads / str(upload.id)
    try:
        if upload.sha256 is not None and upload.sha256 != sha256:
            detail = f"The file has the SHA-256 {sha256}, not {upload.sha256}. It was removed; begin a new upload."
            raise Invalid(detail, code="sha256_mismatch", errors=[FieldError("Upload-Metadata.sha256", detail)])
        kept = keep_archive(services, ReceivedFile(path, sha256, upload.length, upload.filename))
    except (Invalid, TooLarge, UnsupportedMedia):
        with services.database.writing() as session:
            uploads.end(session, upload.id)
        path.unlink(missing_ok=True)
        raise
    with services.database.writing() as session:
        row = uploads.get(session, writer.workspace_id, upload.id, lock=True)
        limit = services.settings.max_workspace_bytes
        datasets.quota(session, writer.workspace_id, limit, besides=upload.id).check(upload.length)
        options = UploadOptions.model_validate(upload.options)
        dataset = create_dataset_of(session, services, writer.workspace_id, options, kept)
        uploads.finish(session, row, dataset.id)
        headers = _progress(row)
    path.unlink(missing_ok=True)
    return Response(status_code=204, headers=headers)


def _progress(upload: ResumableUpload) -> dict[str, str]:
    headers = {"Upload-Offset": str(upload.received), "Upload-Expires": tus.http_date(upload.expires_at)}
    return headers | ({"Location": f"/v1/datasets/{upload.dataset_id}"} if upload.dataset_id else {})


def _remove_file(services: Services, upload_id: UUID) -> None:
    path = services.settings.uploads / str(upload_id)
    with disk_errors_explained(path.parent), suppress(FileNotFoundError):
        path.unlink()
