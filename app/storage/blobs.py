"""This module says what a store of content-addressed blobs promises, and what can be wrong with a blob."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from app.core.errors import GraftError

CHUNK_BYTES = 1 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob is known by its bytes: `sha256` is 64 lower-case hex digits, `size` is in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A store lists a blob with these; `modified` (aware, UTC) is when somebody last put it."""

    sha256: str
    size: int
    modified: datetime


class BlobMissing(GraftError):
    """500: a blob that something points to is not in the store."""

    title, code = "Stored data is missing", "blob_missing"

    def __init__(self, sha256: str, where: str) -> None:
        super().__init__(
            f"Blob {sha256} is not in {where}. Restore it from a backup of the store, or upload the same bytes again."
        )
        self.sha256 = sha256


class BlobDamaged(GraftError):
    """500: a blob's bytes no longer have its hash."""

    title, code = "Stored data is damaged", "blob_damaged"

    def __init__(self, sha256: str, where: str, found: str) -> None:
        super().__init__(
            f"Blob {sha256} in {where} is damaged: its bytes hash to {found}. "
            "Delete it and restore it from a backup of the store, or upload the same bytes again."
        )
        self.sha256 = sha256


class BlobStore(Protocol):
    """A store keeps blobs. It is safe to share between threads and processes; no blob is ever seen half written.

    Every `sha256` argument is 64 lower-case hex digits, otherwise `ValueError`. Every method raises
    `app.core.errors.Unavailable` when the backend fails (full disk, no permission, no connection).
    """

    def put_bytes(self, data: bytes) -> Blob:
        """Keep `data` and return its blob. If it is there already its `modified` is brought up to date instead."""
        ...

    def put_many(self, contents: Sequence[bytes]) -> Sequence[Blob]:
        """Keep each, like `put_bytes`, but wait for the backend once and not once for each. If it raises, some may be
        there."""
        ...

    def put_file(self, path: Path, *, move: bool = False) -> Blob:
        """Keep a file's bytes, like `put_bytes`. With `move` the file at `path` is gone afterwards."""
        ...

    def read(self, sha256: str) -> bytes:
        """Return all bytes, checked against the hash. Raises BlobMissing, BlobDamaged."""
        ...

    def open(self, sha256: str) -> BinaryIO:
        """Return a seekable stream that the caller closes; its bytes are not checked. Raises BlobMissing."""
        ...

    def fetch(self, sha256: str, directory: Path) -> Path:
        """Return a local file with the bytes, for reading only: the store's own, or a checked copy in `directory`.

        A good copy already in `directory` is used again. Raises BlobMissing, BlobDamaged.
        """
        ...

    def exists(self, sha256: str) -> bool: ...

    def delete(self, sha256: str, *, older_than: datetime | None = None) -> bool:
        """Remove the blob, with `older_than` (aware) only if it was last put before it. Return whether it did."""
        ...

    def list(self, older_than: datetime | None = None) -> Iterator[StoredBlob]:
        """Return every blob, in no order; with `older_than` (aware) only those last put before it."""
        ...

    def discard_unfinished(self, older_than: datetime) -> int:
        """Remove what writers that died left behind before `older_than` (aware); returns how many files."""
        ...

    def now(self) -> datetime:
        """Return the time (aware, UTC) by the clock that dates blobs: ages are told by that one, and not by ours."""
        ...

    def check(self) -> None:
        """Raise Unavailable unless a blob can be written now."""
        ...


def blob_key(sha256: str) -> str:
    """Return `ab/cd/abcd…`, two levels so that no folder grows huge. Raises ValueError for anything but a hash."""
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"not a SHA-256 in lower-case hex: {sha256!r}")
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}"


def sha256_of_key(key: str) -> str | None:
    """Return the hash a key stands for, or None for something that is not a blob."""
    name = key.rpartition("/")[2]
    return name if _SHA256.fullmatch(name) and blob_key(name) == key else None
