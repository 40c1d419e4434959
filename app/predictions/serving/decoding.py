"""Decode images in as many threads as there are cores, whatever the number of requests."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from app.predictions.serving.batcher import Answer, Batcher, fail
from app.predictions.serving.timing import Times

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Decoder:
    """Turns bytes into prepared images and passes them to the model. Each image is decoded by one thread."""

    def __init__(self, threads: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(threads or len(os.sched_getaffinity(0)), thread_name_prefix="decode")

    def put(self, read: "Callable[[], NDArray[np.uint8]]", batcher: Batcher, future: Answer, times: Times) -> None:
        """Run `read` in a thread and queue the image it returns under `future`, a place from `batcher.admit`.

        An error of `read` is set on `future`.
        """

        def decode() -> None:
            if future.cancelled():
                return
            times.decoding = time.monotonic()
            try:
                pixels = read()
            except Exception as error:
                times.decoded = time.monotonic()
                fail(future, error)
                return
            times.decoded = time.monotonic()
            batcher.put(pixels, future, times)

        self._pool.submit(decode)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
