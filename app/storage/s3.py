"""This module keeps blobs in an S3-compatible bucket: `<prefix>/ab/cd/<sha256>`, uploaded in parts where large."""

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from app.core.errors import Unavailable
from app.storage.blobs import CHUNK_BYTES, Blob, BlobDamaged, BlobMissing, StoredBlob, blob_key, sha256_of_key
from app.storage.connection import S3Options, connect
from app.storage.disk import disk_errors_explained, staged_file

if TYPE_CHECKING:  # a name that obstore has for type checkers only
    from obstore import ReadableFile

# S3 allows 10,000 parts, so 16 MiB holds objects up to 156 GiB; four parts in flight take 64 MiB of memory.
_PART_BYTES = 16 << 20
_PARTS_IN_FLIGHT = 4
_UPLOADS = 16  # of a batch, at once: each waits for the network
_WRITABLE_KEY = "writable"


class BucketStore:
    """This `BlobStore` lies in a bucket that exists already.

    S3 has no touch: a blob put again is uploaded again once it is older than `refresh_after`, which must be well
    below the garbage collector's grace period.
    """

    def __init__(
        self, bucket: str, prefix: str, options: S3Options, *, refresh_after: timedelta = timedelta(minutes=5)
    ) -> None:
        self.where = f"s3://{bucket}/{prefix}".rstrip("/")
        self._endpoint = options.endpoint or f"AWS, region {options.region}"
        self._refresh_after = refresh_after
        self._store = connect(bucket, prefix, options)

    def __repr__(self) -> str:
        return f"BucketStore({self.where!r})"

    def put_bytes(self, data: bytes) -> Blob:
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        self._upload(blob, data)
        return blob

    def put_many(self, contents: Sequence[bytes]) -> Sequence[Blob]:
        with ThreadPoolExecutor(_UPLOADS) as uploads:
            return [*uploads.map(self.put_bytes, contents)]

    def put_file(self, path: Path, *, move: bool = False) -> Blob:
        with disk_errors_explained(path.parent):
            with path.open("rb") as file:
                blob = Blob(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
            self._upload(blob, path)
            if move:
                path.unlink(missing_ok=True)
        return blob

    def read(self, sha256: str) -> bytes:
        with self._errors_explained(sha256):
            data = bytes(obstore.get(self._store, blob_key(sha256)).bytes())
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise BlobDamaged(sha256, self.where, found)
        return data

    def open(self, sha256: str) -> BinaryIO:
        with self._errors_explained(sha256):
            reader = obstore.open_reader(self._store, blob_key(sha256), buffer_size=CHUNK_BYTES)
        return io.BufferedReader(_Reader(reader, lambda: self._errors_explained(sha256)), CHUNK_BYTES)

    def fetch(self, sha256: str, directory: Path) -> Path:
        target = directory / sha256
        with disk_errors_explained(directory):
            if target.is_file() and _sha256_of_file(target) == sha256:
                return target
            with staged_file(directory) as (staged, file):
                found = self._download(sha256, file)
                if found != sha256:
                    raise BlobDamaged(sha256, self.where, found)
                staged.replace(target)
        return target

    def exists(self, sha256: str) -> bool:
        try:
            with self._errors_explained(sha256):
                obstore.head(self._store, blob_key(sha256))
        except BlobMissing:
            return False
        return True

    def delete(self, sha256: str, *, older_than: datetime | None = None) -> bool:
        try:
            with self._errors_explained(sha256):
                # S3 deletes what is not there without a word, so it is asked first in every case.
                modified = obstore.head(self._store, blob_key(sha256))["last_modified"]
                if older_than is not None and modified >= older_than:
                    return False
                obstore.delete(self._store, blob_key(sha256))
        except BlobMissing:
            return False
        return True

    def list(self, older_than: datetime | None = None) -> Iterator[StoredBlob]:
        with self._errors_explained():
            for page in obstore.list(self._store):
                for entry in page:
                    sha256 = sha256_of_key(entry["path"])
                    modified = entry["last_modified"]
                    if sha256 is not None and (older_than is None or modified < older_than):
                        yield StoredBlob(sha256, entry["size"], modified)

    def discard_unfinished(self, older_than: datetime) -> int:
        """Return 0: a lifecycle rule of the bucket ends unfinished multipart uploads."""
        return 0

    def now(self) -> datetime:
        with self._errors_explained():
            obstore.put(self._store, _WRITABLE_KEY, b"writable")
            found: datetime = obstore.head(self._store, _WRITABLE_KEY)["last_modified"]
            return found

    def check(self) -> None:
        with self._errors_explained():
            obstore.put(self._store, _WRITABLE_KEY, b"writable")

    def _upload(self, blob: Blob, source: bytes | Path) -> None:
        key = blob_key(blob.sha256)
        if self._is_fresh(blob):
            return
        with self._errors_explained():
            obstore.put(self._store, key, source, chunk_size=_PART_BYTES, max_concurrency=_PARTS_IN_FLIGHT)

    def _is_fresh(self, blob: Blob) -> bool:
        try:
            with self._errors_explained(blob.sha256):
                entry = obstore.head(self._store, blob_key(blob.sha256))
        except BlobMissing:
            return False
        return entry["size"] == blob.size and datetime.now(UTC) - entry["last_modified"] < self._refresh_after

    def _download(self, sha256: str, file: BinaryIO) -> str:
        digest = hashlib.sha256()
        with self._errors_explained(sha256):
            chunks = obstore.get(self._store, blob_key(sha256)).stream(min_chunk_size=CHUNK_BYTES)
        while (chunk := self._next(sha256, chunks)) is not None:
            digest.update(chunk)
            file.write(chunk)
        return digest.hexdigest()

    def _next(self, sha256: str, chunks: Iterator[bytes]) -> bytes | None:
        # Apart from the write, so that a full local disk is not taken for a failing bucket.
        with self._errors_explained(sha256):
            return next(chunks, None)

    @contextmanager
    def _errors_explained(self, sha256: str | None = None) -> Iterator[None]:
        """Turn obstore's errors into BlobMissing (when `sha256` is what was asked for) or Unavailable."""
        try:
            yield
        except FileNotFoundError as error:
            if sha256 is not None and "NoSuchBucket" not in str(error):
                raise BlobMissing(sha256, self.where) from None
            raise self._unavailable(error) from error
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> Unavailable:
        # The first line says what happened; obstore's later ones are its internals.
        what = str(error).strip().partition("\n")[0]
        if "NoSuchBucket" in str(error):
            advice = "The bucket does not exist: create it, or correct GRAFT_STORAGE_URL."
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError):
            advice = (
                "The store refuses these credentials: check GRAFT_S3_ACCESS_KEY, GRAFT_S3_SECRET_KEY and their policy."
            )
        else:
            advice = f"Check that {self._endpoint} is up and reachable from this machine, then try again."
        return Unavailable(f"{self.where} does not work. {advice} ({what})", code="storage_unavailable", retry_after=30)


class _Reader(io.RawIOBase):
    """This class makes obstore's reader a Python file, with our errors."""

    def __init__(self, reader: "ReadableFile", explained: Callable[[], AbstractContextManager[None]]) -> None:
        self._reader = reader
        self._explained = explained

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._reader.seek(offset, whence)

    def tell(self) -> int:
        return self._reader.tell()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with self._explained():
            data = self._reader.read(len(buffer))
        buffer[: len(data)] = bytes(data)
        return len(data)


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
