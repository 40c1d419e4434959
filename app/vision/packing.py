"""Decodes every image of a run once, into one memory-mapped array that the epochs read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.vision.preprocessing import Preprocessing

DECODERS = 4
# Decoding releases the interpreter lock, so a few threads help; each holds one decoded image at a time.


def pack(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    target: Path,
    *,
    decoders: int = DECODERS,
    progress: Callable[[int], object] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> NDArray[np.uint8] | None:
    """Write the images to the .npy file `target` and map it read-only: uint8 [N, resize, resize, 3], rows as `paths`.

    `progress` hears how many are done. `should_stop` is asked after each image; when it says yes the half-written file
    is removed and None returned. Raises InvalidData naming the first file that cannot be decoded. Memory stays bounded
    by `decoders` images however many there are: the array is written through the page cache, not held.
    """
    side = preprocessing.resize
    array = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=(len(paths), side, side, 3))
    waiting: deque[tuple[int, Future[NDArray[np.uint8]]]] = deque()

    def store_oldest() -> None:
        row, future = waiting.popleft()
        array[row] = future.result()
        progress(row + 1)

    complete = False
    try:
        with ThreadPoolExecutor(decoders, thread_name_prefix="decode") as pool:
            try:
                for row, path in enumerate(paths):
                    waiting.append((row, pool.submit(preprocessing.load, path)))
                    if len(waiting) > 2 * decoders:
                        store_oldest()
                    if should_stop():
                        return None
                while waiting:
                    store_oldest()
            finally:
                for _, future in waiting:
                    future.cancel()
        array.flush()
        complete = True
    finally:
        if not complete:
            target.unlink(missing_ok=True)
    return np.load(target, mmap_mode="r")  # type: ignore[no-any-return]
