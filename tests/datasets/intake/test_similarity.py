import io
import random
from itertools import combinations

import imagehash
import numpy as np
import pytest
from PIL import Image

from app.datasets.intake.similarity import NEAR, near_pairs, perceptual_hashes, sketch
from tests.support.images import jpeg, photo


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def perceptual_hash(image: Image.Image) -> str:
    (found,) = perceptual_hashes([sketch(image)])
    return found


def smooth(seed: int, size: tuple[int, int] = (600, 400)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def test_the_hashes_are_near_those_of_a_library() -> None:
    pictures = [photo(number % 2, number, (64 + 3 * number, 90)) for number in range(9)]
    pictures += [smooth(number, (301 + 50 * number, 200)) for number in range(9)]
    off = [distance(perceptual_hash(picture), str(imagehash.phash(picture))) for picture in pictures]
    assert max(off) <= NEAR
    assert sum(off) / len(off) < NEAR / 2
    flat = [Image.new("RGB", (40, 40), colour) for colour in ("black", "white", "red")]  # all but one wave is 0
    flat += [Image.linear_gradient("L").resize((99, 99)), Image.new("L", (500, 333), 7)]
    assert [perceptual_hash(picture) for picture in flat] == [str(imagehash.phash(picture)) for picture in flat]


def test_a_hash_is_the_same_alone_and_among_others() -> None:
    pictures = [photo(number % 2, number, (60 + number // 2, 90)) for number in range(9)] + [photo(0, 0, (2, 2))]
    alone = [perceptual_hash(picture) for picture in pictures]
    assert perceptual_hashes([sketch(picture) for picture in pictures]) == alone
    assert len(set(alone)) == 10
    assert perceptual_hashes([]) == []


@pytest.mark.parametrize("size", [(64, 64), (500, 375), (1023, 257), (333, 1999)])
def test_a_jpeg_is_hashed_at_the_scale_it_is_decoded_at_as_at_full_size(size: tuple[int, int]) -> None:
    """What is left at an edge when a picture is scaled counts as the fraction of a pixel that it is."""
    off = []
    for number in range(20):
        data = jpeg(smooth(number, size))
        with Image.open(io.BytesIO(data)) as decoded, Image.open(io.BytesIO(data)) as scaled:
            decoded.load()
            off.append(distance(perceptual_hash(decoded), perceptual_hash(scaled)))
            assert (scaled.size == size) == (min(size) < 64)
            assert scaled.mode == "L"
    assert max(off) <= 2
    assert sum(off) <= 10


def test_copies_are_near_and_other_pictures_are_not() -> None:
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
