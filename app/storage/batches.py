"""Many small blobs, stored a batch at a time beside whoever makes them."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from app.storage.blobs import Blob, BlobStore

_MOST = 512  # blobs a batch: the wait for the disk is shared by so many
_MOST_BYTES = 32 << 20  # a batch: two of them may be in memory


class Batches:
    """Puts what it is given into `store`; one batch is written while the next is collected. For one thread."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._writer = ThreadPoolExecutor(1, "write")
        self._collected: list[bytes] = []
        self._bytes = 0
        self._under_way: Future[None] | None = None
        self._blobs: list[Blob] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._writer.shutdown()

    def put(self, data: bytes) -> None:
        """Raises what the store raised for an earlier batch."""
        self._collected.append(data)
        self._bytes += len(data)
        if len(self._collected) >= _MOST or self._bytes >= _MOST_BYTES:
            self._send()

    def finish(self) -> list[Blob]:
        """Every blob in the order it was put, once all are stored."""
        self._send()
        self._wait()
        return self._blobs

    def _send(self) -> None:
        self._wait()
        self._under_way = self._writer.submit(self._write, self._collected)
        self._collected, self._bytes = [], 0

    def _wait(self) -> None:
        if self._under_way is not None:
            self._under_way.result()

    def _write(self, contents: list[bytes]) -> None:
        self._blobs += self._store.put_many(contents)
