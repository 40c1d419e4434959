"""This module makes perceptual hashes: images that look the same have hashes that differ in few of their 64 bits."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 4  # bits; scaled, recompressed and slightly cropped copies lie below, other images lie around 32
_BITS = 64
_WAVES = 8  # of lowest frequency, in either direction: one a bit
_SIDE = 32  # px a side that show them well; larger images are scaled to less than twice as many, cheaply


class Sketch(NamedTuple):
    """This is hashed of an image: grey pixels, row by row, of which the last of a row or column may be a fraction."""

    width: float
    height: float
    pixels: bytes


def sketch(image: Image.Image) -> Sketch:
    """Return `image` in grey, scaled to 32 to 63 px a side where it has more.

    A JPEG that is not decoded yet is decoded by this, to the very end of its data, but in grey and no larger than
    needed: it says nothing about its size or colours afterwards.
    """
    drafted = image.draft("L", (_SIDE, _SIDE))
    width, height = drafted[1][2:] if drafted else image.size
    grey = image if image.mode == "L" else image.convert("L")
    across, down = max(grey.width // _SIDE, 1), max(grey.height // _SIDE, 1)
    if across > 1 or down > 1:
        grey = grey.reduce((across, down))
    return Sketch(width / across, height / down, grey.tobytes())


@lru_cache(256)
def _waves(extent: float) -> NDArray[np.float64]:
    """Return the rows of DCT-II: what each pixel of `extent` px holds of waves that pass there 0, ½, … 3½ times, (8,
    pixels).

    What scaling leaves of an edge may be a fraction of a pixel. Taken for a whole one, it would shift the rest.
    """
    edges = np.minimum(np.arange(math.ceil(extent) + 1), extent)
    turns = np.pi / extent * np.arange(1, _WAVES)[:, np.newaxis]
    # Each wave's integral over the pixel: of an even image, all of them together have nothing.
    return np.vstack([np.diff(edges), np.diff(np.sin(turns * edges)) / turns])


def perceptual_hashes(sketches: Sequence[Sketch]) -> list[str]:
    """Return the DCT hash (pHash; Zauner 2010) of each as 16 hexadecimal digits: which of 8 × 8 waves are above the
    median.

    Within `NEAR` of what the library imagehash makes of the same image, and mostly equal. It scales to 32 × 32 px
    with a filter whose making costs half as much as a small image's decoding.
    """
    alike = defaultdict(list)
    for place, one in enumerate(sketches):
        alike[one.width, one.height].append(place)
    waves = np.empty((len(sketches), _WAVES, _WAVES))
    for (width, height), places in alike.items():
        down, across = _waves(height), _waves(width)
        pixels = np.frombuffer(b"".join(sketches[place].pixels for place in places), dtype=np.uint8)
        waves[places] = down @ pixels.reshape(len(places), down.shape[1], across.shape[1]) @ across.T
    parts = waves.reshape(len(sketches), _BITS).round(6)  # what is nothing is 0, and not the noise of adding up
    # Not with np.median, which imports masked arrays for it.
    middle = np.sort(parts, axis=1)[:, _BITS // 2 - 1 : _BITS // 2 + 1].mean(axis=1, keepdims=True)
    bits = parts > middle
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


def near_pairs(hashes: Sequence[str], *, near: int = NEAR, most: int = 100_000) -> Iterator[tuple[int, int]]:
    """Return the places (i < j) of hashes that differ in at most `near` bits, each pair once, at most `most` of them.

    Of `near` + 1 parts of two such hashes at least one is equal, so only hashes that share a part are compared.
    """
    words = np.array([int(value, 16) for value in hashes], dtype=np.uint64)
    edges = np.linspace(0, _BITS, near + 2).astype(int)
    found = 0
    for part in range(near + 1):
        keys = [_part(words, edges[at], edges[at + 1]) for at in range(part + 1)]
        order = np.argsort(keys[part], kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(keys[part][order]) != 0, True])
        for begin, end in pairwise(starts):
            group = np.sort(order[begin:end])
            for place, first in enumerate(group[:-1]):
                others = group[place + 1 :]
                close = others[np.bitwise_count(words[others] ^ words[first]) <= near]
                for second in close:
                    # A pair that shares an earlier part was found there.
                    if any(key[first] == key[second] for key in keys[:-1]):
                        continue
                    found += 1
                    if found > most:
                        return
                    yield int(first), int(second)


def _part(words: NDArray[np.uint64], low: int, high: int) -> NDArray[np.uint64]:
    return (words >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
