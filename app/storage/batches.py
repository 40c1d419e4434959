"""This module stores many small blobs, a batch at a time, while the caller makes the next ones."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from app.storage.blobs import Blob, BlobStore

_MOST = 512  # blobs a batch: the wait for the disk is shared by so many
_MOST_BYTES = 32 << 20  # a batch
_UNDER_WAY = 2  # batches: while one waits for the disk the other is written; with what is collected, all in memory


class Batches:
    """This class puts blobs into `store`; some batches are written while the next is collected. It is for one
    thread."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._writers = ThreadPoolExecutor(_UNDER_WAY, "write")
        self._collected: list[bytes] = []
        self._bytes = 0
        self._under_way: deque[Future[Sequence[Blob]]] = deque()
        self._blobs: list[Blob] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._writers.shutdown()

    def put(self, data: bytes) -> None:
        """Add a blob. Raises what the store raised for an earlier batch."""
        self._collected.append(data)
        self._bytes += len(data)
        if len(self._collected) >= _MOST or self._bytes >= _MOST_BYTES:
            self._send()

    def finish(self) -> list[Blob]:
        """Return every blob in the order in which it was put, once all are stored."""
        self._send()
        self._wait(0)
        return self._blobs

    def _send(self) -> None:
        self._wait(_UNDER_WAY - 1)
        self._under_way.append(self._writers.submit(self._store.put_many, self._collected))
        self._collected, self._bytes = [], 0

    def _wait(self, most: int) -> None:
        """Wait until at most so many batches are under way."""
        while len(self._under_way) > most:
            self._blobs += self._under_way.popleft().result()
