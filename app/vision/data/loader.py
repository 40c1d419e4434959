"""Prepares the next batches in background threads while the network works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Prepare = Callable[[int, NDArray[np.int64]], Tensor]


class Loader:
    """Gives what `prepare` makes of (epoch, rows); with `workers` threads, `workers` + 1 batches ahead.

    What a batch holds depends on its arguments alone, so the number of workers changes nothing but the pace.
    """

    def __init__(self, prepare: Prepare, workers: int) -> None:
        self._prepare = prepare
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="loader") if workers else None
        self._ahead = workers + 1
        self._epoch = 0
        self._coming: Iterator[NDArray[np.int64]] = iter(())
        self._waiting: deque[tuple[NDArray[np.int64], Future[Tensor]]] = deque()

    def expect(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> None:
        """These will be taken next, in this order."""
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()
        self._epoch, self._coming = epoch, iter(batches)
        self._fill()

    def take(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """Return the batch; made on the spot if it was not expected."""
        if not self._waiting or epoch != self._epoch or self._waiting[0][0] is not rows:
            return self._prepare(epoch, rows)
        _, future = self._waiting.popleft()
        self._fill()
        return future.result()

    def _fill(self) -> None:
        while self._pool is not None and len(self._waiting) < self._ahead:
            rows = next(self._coming, None)
            if rows is None:
                return
            self._waiting.append((rows, self._pool.submit(self._prepare, self._epoch, rows)))
