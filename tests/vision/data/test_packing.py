"""Decoding once into rows of pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.vision.data.packing import image_keys, pack
from app.vision.data.rowcache import RowCache
from app.vision.data.samples import Sample
from app.vision.errors import InvalidData, Stopped
from app.vision.images.preprocessing import Preprocessing

SMALL = Preprocessing(resize=32, crop=24)


@pytest.fixture
def cache(tmp_path: Path) -> RowCache:
    return RowCache(tmp_path / "cache")


def test_rows_are_the_images_in_order_and_in_any_other(samples: list[Sample], cache: RowCache) -> None:
    heard: list[float] = []
    packed = pack(samples, image_keys(samples), SMALL, cache, progress=heard.append)
    assert heard == [done / len(samples) for done in range(1, len(samples) + 1)]
    expected = np.stack([SMALL.load(sample.path) for sample in samples])
    assert len(packed) == len(samples)
    for rows in (np.arange(len(samples)), np.array([5, 6, 7, 2, 2, 41, 0]), np.array([], dtype=np.int64)):
        assert np.array_equal(packed.read(rows), expected[rows])


def test_only_what_is_not_there_is_fetched_and_decoded(samples: list[Sample], cache: RowCache) -> None:
    fetched: list[Sample] = []

    def fetch(sample: Sample) -> Path:
        fetched.append(sample)
        return sample.path

    keys = image_keys(samples)
    pack(samples[:20], keys[:20], SMALL, cache, fetch=fetch)
    assert sorted(fetched, key=lambda sample: sample.path) == sorted(samples[:20], key=lambda sample: sample.path)
    fetched.clear()
    both = pack(samples[10:30] + samples[:1], keys[10:30] + keys[:1], SMALL, cache, fetch=fetch)
    assert {sample.path for sample in fetched} == {sample.path for sample in samples[20:30]}
    expected = np.stack([SMALL.load(sample.path) for sample in samples[10:30] + samples[:1]])
    assert np.array_equal(both.read(np.arange(21)), expected)
    pack(samples[:5], keys[:5], Preprocessing(resize=33, crop=24), cache, fetch=fetch)
    assert len(fetched) == 15  # at another resolution they are other pixels
    pack(samples[:5], keys[:5], Preprocessing(resize=32, crop=32), cache, fetch=fetch)
    assert len(fetched) == 15  # the crop is taken later


def test_a_broken_image_is_named_and_nothing_is_left(samples: list[Sample], cache: RowCache, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(samples[0].path.read_bytes()[:100])
    some = [*samples, Sample(broken, 0, "train")]
    with pytest.raises(InvalidData, match=r"broken\.png"):
        pack(some, image_keys(some), SMALL, cache)
    assert cache.nbytes() == 0
    assert not list(cache.folder.rglob("*.tmp"))


def test_packing_stops_when_asked_and_keeps_what_was_decoded(samples: list[Sample], cache: RowCache) -> None:
    asked = iter([False] * 15 + [True])
    keys = image_keys(samples)
    with pytest.raises(Stopped):
        pack(samples, keys, SMALL, cache, should_stop=lambda: next(asked))
    heard: list[float] = []
    pack(samples, keys, SMALL, cache, progress=heard.append)
    assert 0 < len(heard) < len(samples)
