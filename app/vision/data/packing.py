"""Decodes every image of a run once, into rows of pixels that the epochs read."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from app.vision.data.rowcache import Add, Kind, RowCache, Rows
from app.vision.data.samples import Sample
from app.vision.errors import InvalidData, Stopped
from app.vision.images.preprocessing import Preprocessing

DECODERS = min(16, max(4, len(os.sched_getaffinity(0))))
# Decoding releases the interpreter lock, so threads help; each holds one decoded image at a time.

Fetch = Callable[[Sample], Path]


def own_path(sample: Sample) -> Path:
    """Return the file of a sample that lies on disk already."""
    return sample.path


def image_keys(samples: Sequence[Sample]) -> list[bytes]:
    """Return the SHA-256 of each image's file, read where the sample does not say it.

    Raises InvalidData naming the file.
    """

    def key(sample: Sample) -> bytes:
        if sample.sha256:
            return bytes.fromhex(sample.sha256)
        try:
            with sample.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError as error:
            raise InvalidData(f"{sample.path.name}: not a readable image ({error})") from error

    with ThreadPoolExecutor(DECODERS, thread_name_prefix="hash") as pool:
        return list(pool.map(key, samples))


def pack(
    samples: Sequence[Sample],
    keys: Sequence[bytes],
    preprocessing: Preprocessing,
    cache: RowCache,
    *,
    fetch: Fetch = own_path,
    progress: Callable[[float], object] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Rows:
    """Return the pixels of the samples, uint8 of `stored_shape`; what is not in the cache is fetched and decoded.

    `keys` are the images' hashes. `progress` hears which share is done. `should_stop` is asked after each image; when
    it says yes what was decoded is kept and Stopped raised. Raises InvalidData naming the first file that cannot be
    decoded. Memory stays bounded by a few images a decoder, however many there are.
    """

    def compute(places: list[int], add: Add) -> None:
        waiting: deque[Future[NDArray[np.uint8]]] = deque()
        done = 0

        def store_oldest() -> None:
            nonlocal done
            add(waiting.popleft().result()[None])
            done += 1
            progress(done / len(places))

        with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
            try:
                for place in places:
                    waiting.append(pool.submit(lambda sample: preprocessing.load(fetch(sample)), samples[place]))
                    if len(waiting) > 2 * DECODERS:
                        store_oldest()
                    if should_stop():
                        raise Stopped(checkpoint_written=False)
                while waiting:
                    store_oldest()
            finally:
                for future in waiting:
                    future.cancel()

    return cache.rows(_kind(preprocessing), keys, compute, should_stop)


def _kind(preprocessing: Preprocessing) -> Kind:
    recipe = preprocessing.stored_recipe | {"pillow": PIL.__version__}
    return Kind("pixels", recipe, preprocessing.stored_shape, "uint8")
