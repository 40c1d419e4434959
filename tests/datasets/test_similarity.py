import io
import random
from itertools import combinations

import imagehash
import numpy as np
from PIL import Image

from app.datasets.similarity import NEAR, near_pairs, perceptual_hashes, sketch
from tests.images import jpeg, photo


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def perceptual_hash(image: Image.Image) -> str:
    (found,) = perceptual_hashes([sketch(image)])
    return found


def test_the_hashes_are_those_of_a_library_and_the_same_alone_and_among_others() -> None:
    pictures = [photo(number % 2, number, (64 + 3 * number, 90)) for number in range(9)]
    pictures += [Image.new("RGB", (40, 40), colour) for colour in ("black", "white", "red")]  # all but one wave is 0
    pictures += [pictures[0].convert("L"), Image.linear_gradient("L").resize((99, 99)), photo(0, 0, (2, 2))]
    expected = [str(imagehash.phash(picture)) for picture in pictures]
    assert perceptual_hashes([sketch(picture) for picture in pictures]) == expected
    assert [perceptual_hash(picture) for picture in pictures] == expected
    assert len(set(expected)) > 9
    assert perceptual_hashes([]) == []


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
