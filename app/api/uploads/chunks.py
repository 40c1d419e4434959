"""Receive the body of one request of a resumable upload; bytes count once they are safely on disk."""

import asyncio
import fcntl
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import UUID

import anyio
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.api.uploads.receiving import Limits, Sink
from app.api.uploads.tus import Checksum
from app.core.errors import FieldError, Locked, Malformed, StorageFull, TooLarge
from app.storage.disk import disk_errors_explained, sync_folder

_SAVE_EVERY = 64 << 20  # bytes; what a process that is killed costs its caller at most
_READ = 1 << 20
_KEPT_HASHES = 64  # uploads


class Hashes:
    """Hashes of the uploads' bytes so far, kept in this process. An unknown hash is computed from the bytes on disk."""

    def __init__(self) -> None:
        self._known: OrderedDict[UUID, tuple[int, hashlib._Hash]] = OrderedDict()

    def keep(self, upload_id: UUID, size: int, digest: "hashlib._Hash") -> None:
        self._known[upload_id] = size, digest
        self._known.move_to_end(upload_id)
        while len(self._known) > _KEPT_HASHES:
            self._known.popitem(last=False)

    def take(self, upload_id: UUID, size: int, file: IO[bytes]) -> "hashlib._Hash":
        """Return the hash of the first `size` bytes of `file`, which the caller then owns."""
        known, digest = self._known.pop(upload_id, (-1, hashlib.sha256()))
        if known == size:
            return digest
        digest = hashlib.sha256()
        file.seek(0)
        left = size
        while left and (data := file.read(min(_READ, left))):
            digest.update(data)
            left -= len(data)
        return digest


@contextmanager
def held(folder: Path, upload_id: UUID, silence: float) -> Iterator[IO[bytes]]:
    """Yield the upload's file, locked so that nobody else writes to it. Raises `Locked`, which names the `silence`.

    The lock is the kernel's: it works between processes, and ends with the process that holds it.
    """
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / str(upload_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Locked(
                "Another request is sending bytes of this upload. Ask for its offset with HEAD, and continue when that "
                f"request has ended; a silent connection is closed after {silence:g} s.",
                code="upload_locked",
                retry_after=1,
            ) from None
        yield file


class Piece:
    """The body of one request, appended to what is there.

    A connection without a byte for `silence` seconds counts as broken, though nobody closed it.
    """

    def __init__(
        self,
        file: IO[bytes],
        folder: Path,
        offset: int,
        length: int,
        limits: Limits,
        digest: "hashlib._Hash",
        save: Callable[[int], object],
        silence: float,
    ) -> None:
        self._silence = silence
        self._file = file
        self._folder = folder
        self._length = length
        self._save_row = save
        self._saved = offset
        self._sink = Sink(file, folder, limits, offset, digest)
        with disk_errors_explained(folder):
            file.truncate(offset)
            file.seek(offset)

    @property
    def size(self) -> int:
        return self._sink.size

    @property
    def digest(self) -> "hashlib._Hash":
        return self._sink.digest

    async def receive(self, request: Request, checksum: Checksum | None) -> None:
        """Write the body to the file until the body ends. Bytes that arrived before the connection broke or the disk
        was full are kept, except with a `checksum`, which can only be compared for a whole body.

        Raises `ChecksumMismatch`, `TooLarge`, `StorageFull`, and `Malformed` for a body that breaks off.
        """
        try:
            await self._receive(request, checksum)
        except (ClientDisconnect, TimeoutError, StorageFull, asyncio.CancelledError) as error:
            if checksum is None:
                self.save()  # not in a thread: a request that is being cancelled may not wait
            if isinstance(error, StorageFull | asyncio.CancelledError):
                raise
            raise Malformed("The body broke off. Ask for the offset with HEAD, and continue from there.") from None
        if checksum is not None:
            checksum.check()
        await run_in_threadpool(self.save)

    async def _receive(self, request: Request, checksum: Checksum | None) -> None:
        chunks = request.stream()
        while True:
            with anyio.fail_after(self._silence):
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            if self.size + len(chunk) > self._length:
                detail = f"The body goes beyond the {self._length} bytes of Upload-Length. Send only the missing bytes."
                raise TooLarge(detail, code="longer_than_declared", errors=[FieldError("Upload-Length", detail)])
            self._sink.write(chunk)
            if checksum is not None:
                checksum.update(chunk)
            elif self.size - self._saved >= _SAVE_EVERY:
                await run_in_threadpool(self.save)

    def save(self) -> None:
        """Sync the bytes to disk and then write their number into the row. The last byte counts when the dataset
        exists."""
        received = min(self.size, self._length - 1)
        if received > self._saved:
            with disk_errors_explained(self._folder):
                os.fsync(self._file.fileno())
                sync_folder(self._folder)
        self._save_row(received)
        self._saved = received
