"""A segment is a file of rows, each with a checksum and the hash of what it came from; it is never changed.

Layout: the rows; for each row the key and the SHA-256 of its bytes; a trailer of magic, count, and the SHA-256 of
that index.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import uuid
import weakref
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY = 32  # bytes of a SHA-256
ENTRY = 2 * KEY
TRAILER = struct.Struct(">8sQ32s")
MAGIC = b"GRAFTROW"
CHECKERS = 4
SLICE = 64  # rows that are checked at a time


class DamagedSegment(Exception):
    """The file is not what was written."""


class Segment:
    """Is a whole segment, open for reading. It stays readable after its file was removed."""

    def __init__(self, descriptor: int, row_bytes: int, index: bytes) -> None:
        self._descriptor = descriptor
        self._row_bytes = row_bytes
        self._index = index
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def open(cls, path: Path, row_bytes: int) -> Segment:
        """Raise FileNotFoundError, and DamagedSegment if size, trailer or index are not as written."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return cls(descriptor, row_bytes, _index(descriptor, row_bytes))
        except DamagedSegment:
            os.close(descriptor)
            raise

    def find(self, keys: Collection[bytes]) -> dict[bytes, int]:
        """Return the rows of those keys that are here."""
        index = self._index
        return {
            key: row for row in range(len(index) // ENTRY) if (key := index[row * ENTRY : row * ENTRY + KEY]) in keys
        }

    def verify(self, rows: Sequence[int]) -> None:
        """Raise DamagedSegment if one of the rows is not as written. Hashing is ten times faster than decoding."""

        def check(some: Sequence[int]) -> bool:
            buffer = memoryview(bytearray(self._row_bytes))
            for row in some:
                self.read_into(buffer, row)
                start = row * ENTRY + KEY
                if hashlib.sha256(buffer).digest() != self._index[start : start + KEY]:
                    return False
            return True

        slices = [rows[start : start + SLICE] for start in range(0, len(rows), SLICE)]
        with ThreadPoolExecutor(CHECKERS, thread_name_prefix="verify") as pool:
            if not all(pool.map(check, slices)):
                raise DamagedSegment

    def read_into(self, buffer: memoryview, row: int) -> None:
        """Fill the buffer with rows from `row` on. Raises DamagedSegment if the file ends before."""
        offset = row * self._row_bytes
        while buffer:
            count = os.preadv(self._descriptor, [buffer], offset)
            if count == 0:
                raise DamagedSegment
            buffer, offset = buffer[count:], offset + count

    def touch(self) -> None:
        """Mark as used now, for eviction."""
        os.utime(self._descriptor)


class SegmentWriter:
    """Writes rows for `keys`, in their order, to a file that nobody sees before `publish`.

    A lock is held on the file for as long as it is being written, so that one that was left behind can be told.
    """

    def __init__(self, folder: Path, row_bytes: int, keys: Sequence[bytes]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._path = folder / f"{uuid.uuid4().hex}.tmp"
        self._row_bytes = row_bytes
        self._keys = keys
        self._digests: list[bytes] = []
        self._file = self._path.open("xb+")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    @property
    def rows(self) -> int:
        """Return how many rows were added."""
        return len(self._digests)

    @staticmethod
    def size(rows: int, row_bytes: int) -> int:
        """Return the bytes of a segment."""
        return rows * (row_bytes + ENTRY) + TRAILER.size

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows [n, *shape]."""
        for row in rows:
            data = np.ascontiguousarray(row).tobytes()
            self._file.write(data)
            self._digests.append(hashlib.sha256(data).digest())

    def publish(self, durable: bool) -> Segment:
        """Let others see the rows that were added: rename, with fsync of file and folder where it is to last."""
        index = self._finish()
        if durable:
            os.fsync(self._file.fileno())
        self._path.rename(self._path.with_suffix(".rows"))
        if durable:
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return self._opened(index)

    def keep_to_oneself(self) -> Segment:
        """Return the rows for this process alone; the file has no name any more."""
        index = self._finish()
        self._path.unlink()
        return self._opened(index)

    def close(self) -> None:
        """Remove what was not published."""
        self._path.unlink(missing_ok=True)
        self._file.close()

    def _finish(self) -> bytes:
        index = b"".join(key + digest for key, digest in zip(self._keys, self._digests, strict=False))
        self._file.write(index + TRAILER.pack(MAGIC, len(self._digests), hashlib.sha256(index).digest()))
        self._file.flush()
        return index

    def _opened(self, index: bytes) -> Segment:
        return Segment(os.dup(self._file.fileno()), self._row_bytes, index)


def _index(descriptor: int, row_bytes: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size < TRAILER.size:
        raise DamagedSegment
    magic, rows, digest = TRAILER.unpack(os.pread(descriptor, TRAILER.size, size - TRAILER.size))
    if magic != MAGIC or size != SegmentWriter.size(rows, row_bytes):
        raise DamagedSegment
    index = os.pread(descriptor, rows * ENTRY, rows * row_bytes)
    if len(index) != rows * ENTRY or hashlib.sha256(index).digest() != digest:
        raise DamagedSegment
    return index
