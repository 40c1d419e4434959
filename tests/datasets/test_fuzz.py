"""Random and mutated bytes given to the archive reader and the image intake: never a crash, never a hang.

`make fuzz` runs it with GRAFT_TEST_FUZZ cases of each kind; the suite runs a few.
"""

import gzip
import io
import os
import random
import time
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.core.errors import Invalid, TooLarge, UnsupportedMedia
from app.datasets.formats.archive import ArchiveLimits, members
from app.datasets.intake.intake import IntakeLimits, RejectedFile, take_in
from app.datasets.sources.source import ArchiveSource
from tests.support.hostile import tarred, zipped
from tests.support.images import encode, photo

CASES = int(os.environ.get("GRAFT_TEST_FUZZ", "150"))
LIMITS = ArchiveLimits(max_entries=1000, max_file_bytes=1 << 20, max_total_bytes=8 << 20)
IMAGES = IntakeLimits(max_pixels=1_000_000)
HANG = 2.0  # seconds of processor time, of the long run alone: a slow machine decides no test

FILES = {
    "ants/1.jpg": b"one" * 50,
    "bees/2.jpg": b"two",
    "labels.csv": b"path,label,split,x\nants/1.jpg,ants,val,1\n",
    "labels.jsonl": b'{"path": "bees/2.jpg", "label": "bees", "y": [1.5, null]}\n',
}
COCO = {
    "a.jpg": b"",
    "coco.json": b'{"images":[{"id":1,"file_name":"a.jpg"}],"categories":[{"id":1,"name":"x"}],'
    b'"annotations":[{"image_id":1,"category_id":1,"bbox":[1,2,3,4]}]}',
}
VOC = {
    "JPEGImages/1.jpg": b"",
    "Annotations/1.xml": b"<annotation><filename>1.jpg</filename><object><name>a</name></object></annotation>",
    "ImageSets/Main/train.txt": b"1\n",
}

_TARS = [tarred(files) for files in (FILES, COCO, VOC)]
ARCHIVES = [
    *(zipped(files) for files in (FILES, COCO, VOC)),
    *(zipped(files, 0) for files in (FILES, COCO, VOC)),  # stored: what is changed arrives as it is
    *_TARS,
    *map(gzip.compress, _TARS),
    *map(zstandard.compress, _TARS),
]
PICTURES = [
    encode(photo(0, 0, (24, 24)).convert(mode), file_format, **options)
    for file_format, mode, options in [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}),
        ("PNG", "RGB", {}),
        ("PNG", "P", {"transparency": 0}),
        ("PNG", "RGBA", {}),
        ("WEBP", "RGB", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("BMP", "P", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("GIF", "RGB", {}),
    ]
] + [encode(photo(1, 1, (130, 75)), "JPEG", progressive=progressive) for progressive in (False, True)]
_TELLING = [
    b"\0",
    b"\xff",
    b"\x7f",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"../",
    b"/",
    b"PK\3\4",
    b"\xff\xda",
    b"\xff\xd9",
]

fuzzed = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
# A seed alone, and Python's generator behind it: ten times the cases that Hypothesis's own bytes would allow.
seeds = st.integers(0, 2**63)


def mutated(rng: random.Random, whole: list[bytes]) -> bytes:
    """One of `whole`, changed: bytes set, runs cut out, doubled, moved, the end cut off, another one's bytes put in."""
    data = bytearray(rng.choice(whole))
    for _ in range(rng.choice([1, 1, 2, 3, 8, 30])):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.7 else rng.randrange(min(len(data), 200) + 1)
        size = rng.choice([1, 1, 2, 4, 16, 512])
        match rng.randrange(8):
            case 0 | 1 | 2:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 3:
                telling = rng.choice(_TELLING)
                data[at : at + len(telling)] = telling
            case 4:
                del data[at : at + size]
            case 5:
                data[at:at] = data[at : at + size]
            case 6:
                other = rng.choice(whole)
                start = rng.randrange(len(other))
                data[at : at + size] = other[start : start + size]
            case 7:
                if rng.random() < 0.3:
                    del data[at:]
    return bytes(data)


def bounded(work: Callable[[], None]) -> None:
    began = time.process_time()
    work()
    if CASES >= 10_000:
        assert time.process_time() - began < HANG


@fuzzed
@given(seeds)
@example(0)
def test_any_bytes_are_an_archive_or_refused_as_none(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    path = tmp_path_factory.getbasetemp() / f"fuzz-{os.getpid()}"
    path.write_bytes(mutated(rng, ARCHIVES) if seed % 50 else rng.randbytes(rng.randrange(2000)))

    def read() -> None:
        try:
            layout = ArchiveSource(path, LIMITS).layout()
            for _, content in members(path, LIMITS):
                content()
        except (Invalid, TooLarge, UnsupportedMedia) as error:
            error.detail.encode()
        else:
            assert not any(".." in name.split("/") for name in layout.placements)

    bounded(read)
    path.unlink()


@fuzzed
@given(seeds)
@example(0)
def test_any_bytes_are_an_image_or_rejected_as_none(seed: int) -> None:
    rng = random.Random(seed)
    data = mutated(rng, PICTURES) if seed % 50 else rng.randbytes(rng.randrange(2000))

    def read() -> None:
        try:
            kept = take_in(data, "x.jpg", IMAGES)
        except RejectedFile as rejected:
            rejected.reason.encode()
        else:
            assert take_in(kept.data, "x.jpg", IMAGES).data == kept.data
            with Image.open(io.BytesIO(kept.data)) as image:  # at full size, whatever it was looked at in
                assert image.convert("RGB").size == (kept.width, kept.height)

    bounded(read)


def test_the_mutations_reach_both_ends() -> None:
    """A fuzz that only ever breaks the first byte would prove nothing: some cases are still read, most are not."""
    rng = random.Random(0)
    outcomes = []
    for _ in range(200):
        try:
            outcomes.append(take_in(mutated(rng, PICTURES), "x.jpg", IMAGES).media_type)
        except RejectedFile as rejected:
            outcomes.append(rejected.code)
    assert {"image/jpeg", "image/png", "damaged_image", "truncated_image", "not_an_image"} <= set(outcomes)
