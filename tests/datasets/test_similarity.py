import io
import random
from itertools import combinations

import numpy as np
from PIL import Image

from app.datasets.similarity import NEAR, near_pairs, perceptual_hash
from tests.images import jpeg, photo


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_copies_are_near_and_other_pictures_are_not() -> None:
    def smooth(seed: int) -> Image.Image:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        return Image.fromarray(pixels).resize((600, 400), Image.Resampling.BICUBIC)

    first, other = smooth(1), smooth(2)
    original = perceptual_hash(first)
    for copy in (first.resize((200, 133)), first.convert("L"), first.point(lambda value: value * 0.8)):
        assert distance(original, perceptual_hash(copy)) <= NEAR
    with Image.open(io.BytesIO(jpeg(first, quality=30))) as recompressed:
        assert distance(original, perceptual_hash(recompressed)) <= NEAR
    assert distance(original, perceptual_hash(other)) > 16
    assert len(original) == 16
    assert len(perceptual_hash(photo(0, 0, (2, 2)))) == 16


def test_the_pairs_are_those_of_comparing_all() -> None:
    rng = random.Random(0)
    words = [rng.getrandbits(64) for _ in range(60)]
    for word in words[:40]:  # some near, some just not, some equal
        flipped = word
        for bit in rng.sample(range(64), rng.randint(0, NEAR + 2)):
            flipped ^= 1 << bit
        words.append(flipped)
    hashes = [f"{word:016x}" for word in words]
    found = list(near_pairs(hashes))
    expected = {(i, j) for i, j in combinations(range(len(words)), 2) if distance(hashes[i], hashes[j]) <= NEAR}
    assert 20 < len(expected) < 45
    assert sorted(found) == sorted(expected)


def test_pairs_are_bounded_and_nothing_is_none() -> None:
    assert len(list(near_pairs(["0" * 16] * 100, most=50))) == 50
    assert list(near_pairs([])) == list(near_pairs(["0" * 16])) == []
