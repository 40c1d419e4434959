"""Receive an uploaded file: bytes are counted, hashed and written to disk as they arrive."""

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
from app.datasets.service import Quota
from app.storage.disk import check_free, disk_errors_explained, explained

PART = "file"
_LOOK_EVERY = 16 << 20  # bytes between looks at how much of the disk is free


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """An upload on local disk. `filename` is the caller's name for it: it is shown, and never opened as a path."""

    path: Path
    sha256: str
    size: int
    filename: str | None


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an upload: its own bytes, its workspace's bytes, and the bytes that must stay free on the disk."""

    max_bytes: int
    quota: Quota
    min_free: int


class Sink:
    """Counts an upload's bytes against `limits`, hashes them, and writes them to an unbuffered `file` in `folder`.

    `size` and `digest` describe the bytes that the file already holds.
    """

    def __init__(
        self, file: IO[bytes], folder: Path, limits: Limits, size: int = 0, digest: "hashlib._Hash | None" = None
    ) -> None:
        self._file = file
        self._folder = folder
        self._limits = limits
        self._look_at = size
        self.digest = digest or hashlib.sha256()
        self.size = size

    def write(self, chunk: bytes) -> None:
        size = self.size + len(chunk)
        if size > self._limits.max_bytes:
            raise too_large(self._limits.max_bytes)
        self._limits.quota.check(size)
        if self.size >= self._look_at:
            self._look_at = self.size + _LOOK_EVERY
            check_free(self._folder, self._limits.min_free)
        try:
            left = memoryview(chunk)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            raise explained(self._folder, error) from error
        self.digest.update(chunk)
        self.size = size


def too_large(max_bytes: int) -> TooLarge:
    detail = f"The file is larger than {max_bytes} bytes. Send a smaller one, or raise GRAFT_MAX_UPLOAD_BYTES."
    return TooLarge(detail, errors=[FieldError(PART, detail, "too_large")])


class _PartTarget(BaseTarget):  # type: ignore[misc]
    def __init__(self, sink: Sink) -> None:
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
async def receive_file(request: Request, folder: Path, limits: Limits) -> AsyncIterator[ReceivedFile]:
    """Yield the request's body, or its multipart part `file`, as a file that is removed when the context ends.

    Raises `TooLarge`, `StorageFull`, `Invalid` for an empty body or an unknown part, `Malformed` for a broken
    multipart body.
    """
    with _upload_file(folder) as file:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) <= limits.max_bytes:
            limits.quota.check(int(declared))
            check_free(folder, limits.min_free, int(declared))
        sink = Sink(file, folder, limits)
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
        yield ReceivedFile(Path(file.name), sink.digest.hexdigest(), sink.size, filename)


def _upload_file(folder: Path) -> IO[bytes]:
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=folder, prefix="upload-", buffering=0)


async def _receive_part(request: Request, sink: Sink) -> str | None:
    target = _PartTarget(sink)
    try:
        parser = StreamingFormDataParser(dict(request.headers), strict=True)
        parser.register(PART, target)
        async for chunk in request.stream():
            parser.data_received(chunk)
    except UnexpectedPartException as error:
        name = str(error.part_name)
        detail = f"There is no form field {name!r}. Send the archive as the part 'file', and options in the query."
        raise Invalid(detail, errors=[FieldError(name, detail, "unknown_field")]) from None
    except UnicodeDecodeError:
        detail = "A part of the form has a name that is no UTF-8. Send another name, or the file alone: curl -T FILE."
        raise Malformed(detail, errors=[FieldError(PART, detail, "malformed")]) from None
    except ParseFailedException as error:
        raise Malformed(f"The multipart body is broken ({error}). Send it with curl -F file=@images.zip.") from None
    filename: str | None = target.multipart_filename
    return filename
