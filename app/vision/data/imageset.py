"""Gives the images of a run, split by split: their hashes, and their pixels from the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from app.vision.data.packing import Fetch, image_keys, pack
from app.vision.data.rowcache import RowCache, Rows
from app.vision.data.samples import Sample
from app.vision.images.preprocessing import Preprocessing

SPLITS = ("train", "val", "test")


class ImageSet:
    """`keys` holds the SHA-256 of every image of each split that has some, in the order of the samples."""

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        cache: RowCache,
        *,
        fetch: Fetch,
        progress: Callable[[float], object],
        should_stop: Callable[[], bool],
    ) -> None:
        self.cache = cache
        self.preprocessing = preprocessing
        self._samples = {split: [sample for sample in samples if sample.split == split] for split in SPLITS}
        self._samples = {split: chosen for split, chosen in self._samples.items() if chosen}
        self.keys = {split: image_keys(chosen) for split, chosen in self._samples.items()}
        self._fetch = fetch
        self._progress = progress
        self._should_stop = should_stop

    def labels(self) -> dict[str, NDArray[np.int64]]:
        """Return the labels of each split's images."""
        return {
            split: np.array([sample.label for sample in chosen], dtype=np.int64)
            for split, chosen in self._samples.items()
        }

    def packs(self, places: dict[str, list[int]] | None = None) -> dict[str, Rows]:
        """Return the pixels of each split, or of these of its images. Raises InvalidData and Stopped."""
        places = {split: list(range(len(keys))) for split, keys in self.keys.items()} if places is None else places
        total = sum(map(len, places.values()))
        packs: dict[str, Rows] = {}
        before = 0
        for split, chosen in places.items():

            def report(done: float, before: int = before, count: int = len(chosen)) -> None:
                self._progress((before + done * count) / total)

            packs[split] = pack(
                [self._samples[split][place] for place in chosen],
                [self.keys[split][place] for place in chosen],
                self.preprocessing,
                self.cache,
                fetch=self._fetch,
                progress=report,
                should_stop=self._should_stop,
            )
            before += len(chosen)
        return packs
