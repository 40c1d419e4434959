import io

import numpy as np
import pytest
from PIL import Image

from app.datasets.intake.jpeg import TooManyScans, stripped
from tests.support.images import encode, jpeg, photo

PLAIN = jpeg(photo(0, 0))


def pixels(data: bytes) -> object:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image).tolist()


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        jpeg(photo(0, 0), progressive=True, quality=30),
        jpeg(photo(0, 0), exif=b"Exif\0\0" + bytes(99), icc_profile=bytes(70_000), comment=b"hello", xmp=b"hello"),
        jpeg(photo(0, 0).convert("L")),
        jpeg(photo(0, 0).convert("CMYK")),
        jpeg(photo(0, 0), keep_rgb=True),
        encode(photo(0, 0), "MPO", save_all=True, append_images=[photo(1, 0)]),
        PLAIN.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1),
    ],
)
def test_the_picture_stays_and_stripping_again_changes_nothing(data: bytes) -> None:
    once = stripped(data)
    assert once is not None
    assert pixels(once) == pixels(data)
    assert stripped(once) == once
    assert stripped(once + b"PK\x03\x04 and more") == once


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        PLAIN[:-2],
        PLAIN[:100],
        b"\0" + PLAIN,
        PLAIN[:2] + b"junk" + PLAIN[2:],
        PLAIN[:2] + b"\xff\xe0\0\1" + PLAIN[2:],
        PLAIN.replace(b"\xff\xc0", b"\xff\xc9", 1),
        PLAIN[:20] + PLAIN[20:89] * 300 + PLAIN[89:],
    ],
)
def test_what_is_not_laid_out_as_usual(data: bytes) -> None:
    assert stripped(data) is None


def test_scans_are_counted_before_any_is_decoded() -> None:
    at = PLAIN.rindex(b"\xff\xda")
    assert stripped(PLAIN[:-2] + PLAIN[at:-2] * 63 + PLAIN[-2:]) is not None
    with pytest.raises(TooManyScans):
        stripped(PLAIN[:-2] + PLAIN[at:-2] * 64 + PLAIN[-2:])
