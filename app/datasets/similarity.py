"""Perceptual hashes: images that look the same have hashes that differ in few of their 64 bits."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NEAR = 4  # bits; scaled, recompressed and slightly cropped copies lie below, other photographs lie around 32
_BITS = 64
_WAVES = 8  # of lowest frequency, in either direction: one a bit
_SIDE = 32  # px, of the picture that is hashed;
_SAMPLE = 2 * _SIDE  # it is scaled down to about this first, and cheaply
_COSINES = np.cos(np.pi / (2 * _SIDE) * np.outer(np.arange(_WAVES), np.arange(1, 2 * _SIDE, 2)))  # DCT-II

Sketch: TypeAlias = NDArray[np.uint8]


def sketch(image: Image.Image) -> Sketch:
    """What is hashed of `image`: 32 × 32 px of grey."""
    factor = min(image.size) // _SAMPLE
    sample = image.reduce(factor) if factor > 1 else image
    return np.asarray(sample.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))


def perceptual_hashes(sketches: Sequence[Sketch]) -> list[str]:
    """The DCT hash (pHash; Zauner 2010) of each as 16 hexadecimal digits.

    The same that the library imagehash makes of such a grey picture. It takes one at a time, and of small images its
    calls cost more than their decoding.
    """
    if not sketches:
        return []
    waves = (_COSINES @ np.stack(sketches) @ _COSINES.T).reshape(len(sketches), _BITS)
    waves = waves.round(6)  # what is nothing is 0, and not the noise of how it was added up
    bits = waves > np.median(waves, axis=1, keepdims=True)
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


def near_pairs(hashes: Sequence[str], *, near: int = NEAR, most: int = 100_000) -> Iterator[tuple[int, int]]:
    """The places (i < j) of hashes that differ in at most `near` bits, each pair once, at most `most` of them.

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
