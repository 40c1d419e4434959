"""Keeps decoded pixels and trunk features on disk, a row for each image, so that a later run need not compute them.

A kind of row has a folder of its own; in it lie segments, files that are written once and never changed. Rows are
found by the SHA-256 of the image they come from, whatever run or dataset it was in.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.data.segments import DamagedSegment, Segment, SegmentWriter
from app.vision.errors import Stopped

DEFAULT_LIMIT = 10 * 2**30  # bytes
MOST_SEGMENTS = 64  # of one kind; where there are more, the older half goes, and what is wanted of it is computed again
WAIT_S = 0.05

Add = Callable[[NDArray[Any]], None]
Compute = Callable[[list[int], Add], None]


@dataclass(frozen=True)
class Kind:
    """Says what a row is: its shape and dtype, and the `recipe`, which names everything that decides its contents."""

    name: str
    recipe: Mapping[str, Any]
    shape: tuple[int, ...]
    dtype: str

    @property
    def folder(self) -> str:
        """Return the folder's name: another recipe, another folder."""
        document = json.dumps([self.recipe, self.shape, self.dtype], sort_keys=True)
        return f"{self.name}-{hashlib.sha256(document.encode()).hexdigest()[:32]}"

    @property
    def row_bytes(self) -> int:
        """Return the bytes of a row."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


class Rows:
    """Rows in the order in which they were asked for. They are read, not mapped: the process does not grow by them."""

    def __init__(self, kind: Kind, places: Sequence[tuple[Segment, int]]) -> None:
        self._kind = kind
        self._segments = list({id(segment): segment for segment, _ in places}.values())
        number = {id(segment): index for index, segment in enumerate(self._segments)}
        self._segment = np.array([number[id(segment)] for segment, _ in places], dtype=np.int64)
        self._row = np.array([row for _, row in places], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._row)

    @property
    def nbytes(self) -> int:
        """Return the bytes of all rows."""
        return len(self) * self._kind.row_bytes

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return [n, *shape], fresh memory; neighbours in the file are read at one go."""
        out = np.empty((len(rows), *self._kind.shape), dtype=self._kind.dtype)
        if not len(rows):
            return out
        view, size = memoryview(out.data).cast("B"), self._kind.row_bytes
        segment, row = self._segment[rows], self._row[rows]
        breaks = np.flatnonzero((np.diff(segment) != 0) | (np.diff(row) != 1)) + 1
        for first, last in zip([0, *breaks], [*breaks, len(rows)], strict=True):
            self._segments[segment[first]].read_into(view[first * size : last * size], int(row[first]))
        return out


class RowCache:
    """Keeps at most `limit` bytes of rows in a folder; the least recently used segments go first.

    Without a limit it is the folder of a single run, which will be removed, and nothing waits for the disk.

    Several processes may share it. A row that several of them want is computed by one while the others wait; a lock
    ends with its process, and so does a half-written file. What is in use may be evicted: it stays readable until it
    is closed. While rows are being computed, their bytes come on top of the limit only if they alone exceed it.
    """

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder = folder
        self.limit = limit
        folder.mkdir(parents=True, exist_ok=True)

    def missing(self, kind: Kind, keys: Sequence[bytes]) -> list[int]:
        """Return the places in `keys` whose rows are not there whole."""
        found = self._find(kind, keys)
        return [place for place, key in enumerate(keys) if key not in found]

    def rows(
        self, kind: Kind, keys: Sequence[bytes], compute: Compute, should_stop: Callable[[], bool] = lambda: False
    ) -> Rows:
        """Return the rows of images whose SHA-256 are `keys`.

        Those that are not there are computed: `compute` gets their places in `keys` and passes their rows, in that
        order, to a function, any number at a time. Where it raises Stopped, what it had passed is kept. Raises Stopped
        also if `should_stop` says so while another process computes the same kind.
        """
        (self.folder / kind.folder).mkdir(exist_ok=True)
        with self._locked(f"{kind.folder}.lock", should_stop):
            found = self._find(kind, keys)
            first_places = {key: place for place, key in reversed(list(enumerate(keys))) if key not in found}
            if first_places:
                places = sorted(first_places.values())
                new = self._computed(kind, [keys[place] for place in places], places, compute)
                found |= {keys[place]: (new, row) for row, place in enumerate(places)}
        return Rows(kind, [found[key] for key in keys])

    def nbytes(self) -> int:
        """Return the bytes of all rows that are kept."""
        return sum(_size(path) for path in self._paths())

    def _computed(self, kind: Kind, keys: Sequence[bytes], places: list[int], compute: Compute) -> Segment:
        needed = SegmentWriter.size(len(keys), kind.row_bytes)
        with self._locked("room.lock"):
            self._remove_leftovers()
            kept = self.limit is None or needed <= self.limit
            durable = self.limit is not None
            if kept:
                self._make_room(needed)
            writer = SegmentWriter(self.folder / kind.folder, kind.row_bytes, keys)
        try:
            compute(places, writer.add)
            segment = writer.publish(durable) if kept else writer.keep_to_oneself()
        except Stopped:
            if kept and writer.rows:
                writer.publish(durable)
            raise
        finally:
            writer.close()
        if kept:
            with self._locked("room.lock"):  # others may have written meanwhile
                self._make_room(0)
        return segment

    def _find(self, kind: Kind, keys: Sequence[bytes]) -> dict[bytes, tuple[Segment, int]]:
        """Return where the rows of `keys` are; a damaged segment is removed and not among them."""
        found: dict[bytes, tuple[Segment, int]] = {}
        for path in self._newest_first(kind):
            wanted = {key for key in keys if key not in found}
            if not wanted:
                break
            try:
                segment = Segment.open(path, kind.row_bytes)
                rows = segment.find(wanted)
                segment.verify(list(rows.values()))
            except FileNotFoundError:  # evicted since it was listed
                continue
            except DamagedSegment:
                path.unlink(missing_ok=True)
                continue
            if rows:
                segment.touch()
                found |= {key: (segment, row) for key, row in rows.items()}
        return found

    def _newest_first(self, kind: Kind) -> list[Path]:
        paths = sorted((self.folder / kind.folder).glob("*.rows"), key=_used_at, reverse=True)
        if len(paths) <= MOST_SEGMENTS:
            return paths
        for path in paths[MOST_SEGMENTS // 2 :]:
            path.unlink(missing_ok=True)
        return paths[: MOST_SEGMENTS // 2]

    def _paths(self) -> list[Path]:
        return list(self.folder.glob("*/*.rows"))

    def _make_room(self, needed: int) -> None:
        """Evict until `needed` bytes fit beside what is left."""
        if self.limit is None:
            return
        sizes = {path: _size(path) for path in sorted(self._paths(), key=_used_at)}
        total = sum(sizes.values())
        # At most half of what the disk has for it: on a small disk the work needs room too.
        limit = min(self.limit, (total + shutil.disk_usage(self.folder).free) // 2)
        for path, size in sizes.items():
            if total + needed <= limit:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _remove_leftovers(self) -> None:
        """Remove files whose writer is gone: its lock went with it."""
        for path in self.folder.glob("*/*.tmp"):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink(missing_ok=True)
            except (BlockingIOError, FileNotFoundError):  # being written, or just published
                continue

    @contextmanager
    def _locked(self, name: str, should_stop: Callable[[], bool] = lambda: False) -> Iterator[None]:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if should_stop():
                        raise Stopped(checkpoint_written=False) from None
                    time.sleep(WAIT_S)
            yield
        finally:
            os.close(descriptor)


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
