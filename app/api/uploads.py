"""Receive an uploaded file: bytes go to disk as they come, counted and hashed on the way."""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fastapi import Request
from streaming_form_data.parser import ParseFailedException, StreamingFormDataParser, UnexpectedPartException
from streaming_form_data.targets import BaseTarget

from app.core.errors import FieldError, Invalid, Malformed, TooLarge
from app.storage.disk import disk_errors_explained, explained

PART = "file"


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """An upload on local disk. `filename` is what the caller called it: for show, never a path to open."""

    path: Path
    sha256: str
    size: int
    filename: str | None


class _Sink:
    def __init__(self, file: IO[bytes], folder: Path, max_bytes: int) -> None:
        self._file = file
        self._folder = folder
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if self.size > self._max_bytes:
            detail = (
                f"The file is larger than {self._max_bytes} bytes. Send a smaller one, or raise GRAFT_MAX_UPLOAD_BYTES."
            )
            raise TooLarge(detail, errors=[FieldError(PART, detail, "too_large")])
        self._hash.update(chunk)
        try:
            self._file.write(chunk)
        except OSError as error:
            raise explained(self._folder, error) from error

    def sha256(self) -> str:
        return self._hash.hexdigest()


class _PartTarget(BaseTarget):  # type: ignore[misc]
    def __init__(self, sink: _Sink) -> None:
        super().__init__()
        self._sink = sink
        self.parts = 0

    def on_start(self) -> None:
        self.parts += 1
        if self.parts > 1:
            raise Invalid(
                "More than one file was sent. Pack all images into one archive.",
                errors=[FieldError(PART, "Send one part of this name, an archive.")],
            )

    def on_data_received(self, chunk: bytes) -> None:
        self._sink.write(chunk)


@asynccontextmanager
async def receive_file(request: Request, folder: Path, max_bytes: int) -> AsyncIterator[ReceivedFile]:
    """The request's body, or its multipart part `file`, as a file that is gone when the context is left.

    Raises `TooLarge`, `Invalid` for an empty body or an unknown part, `Malformed` for a broken multipart body.
    """
    with _upload_file(folder) as file:
        sink = _Sink(file, folder, max_bytes)
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            filename = await _receive_part(request, sink)
        else:
            filename = None
            async for chunk in request.stream():
                sink.write(chunk)
        if sink.size == 0:
            detail = (
                "The body is empty. Send a zip, tar, tar.gz or tar.zst: "
                "curl -F file=@images.zip, or curl -T images.zip URL/v1/datasets/."
            )
            raise Invalid(detail, code="empty_upload", errors=[FieldError(PART, detail, "empty_upload")])
        with disk_errors_explained(folder):
            file.flush()
        yield ReceivedFile(Path(file.name), sink.sha256(), sink.size, filename)


def _upload_file(folder: Path) -> IO[bytes]:
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder, prefix="upload-")


async def _receive_part(request: Request, sink: _Sink) -> str | None:
    target = _PartTarget(sink)
    try:
        parser = StreamingFormDataParser(dict(request.headers), strict=True)
        parser.register(PART, target)
        async for chunk in request.stream():
            parser.data_received(chunk)
    except UnexpectedPartException as error:
        name = str(error.part_name)
        detail = f"There is no form field {name!r}: the archive is the part 'file', options go into the query."
        raise Invalid(detail, errors=[FieldError(name, detail, "unknown_field")]) from None
    except ParseFailedException as error:
        raise Malformed(f"The multipart body is broken ({error}). Send it with curl -F file=@images.zip.") from None
    filename: str | None = target.multipart_filename
    return filename
