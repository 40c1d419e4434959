"""Decoding once into a memory map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.vision.errors import InvalidData
from app.vision.packing import pack
from app.vision.preprocessing import Preprocessing
from app.vision.run import Sample

SMALL = Preprocessing(resize=32, crop=24)


def test_rows_are_the_images_in_order(samples: list[Sample], tmp_path: Path) -> None:
    paths = [sample.path for sample in samples]
    heard: list[int] = []
    packed = pack(paths, SMALL, tmp_path / "p.npy", progress=heard.append)
    assert isinstance(packed, np.memmap)
    assert heard == list(range(1, len(paths) + 1))
    for row, path in zip(packed, paths, strict=True):
        assert np.array_equal(row, SMALL.load(path))


def test_a_broken_image_is_named_and_nothing_is_left(samples: list[Sample], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(samples[0].path.read_bytes()[:100])
    with pytest.raises(InvalidData, match=r"broken\.png"):
        pack([sample.path for sample in samples] + [broken], SMALL, tmp_path / "p.npy")
    assert not (tmp_path / "p.npy").exists()


def test_packing_stops_when_asked(samples: list[Sample], tmp_path: Path) -> None:
    paths = [sample.path for sample in samples]
    assert pack(paths, SMALL, tmp_path / "p.npy", should_stop=lambda: True) is None
    assert not (tmp_path / "p.npy").exists()
