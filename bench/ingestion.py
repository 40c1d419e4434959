"""Compare the images a second of reading an upload with a plain loop that decodes and hashes each image once.

Both read the same zip. The loop keeps nothing; the ingestion checks, strips, hashes, and writes every image to a
store that survives a power cut, in as many processes as there are cores. Three kinds: many very small images, many of
the size that networks see, and few of 12 megapixels. What was stored stays until the end: ext4 passes over what was
removed in the last five minutes, inode by inode, whenever it makes a file, and each round would pay for the one before.
So does a run that comes too soon after another.
"""

from __future__ import annotations

import gc
import hashlib
import io
import os
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from app.core.garbage import freeze_imports
from app.datasets.formats.archive import ArchiveLimits
from app.datasets.ingestion import ingest
from app.datasets.intake.intake import IntakeLimits
from app.datasets.intake.pool import IntakePool
from app.storage import FilesystemStore
from bench.inputs import CLASSES, textured
from bench.rounds import alternate, arguments, clock, compared, emit, spread

TARGET = 0.8
KINDS = {"small": (10_000, 64, 64), "medium": (10_000, 224, 224), "photos": (100, 4000, 3000)}


def make(path: Path, count: int, width: int, height: int) -> Path:
    """Return a zip of `count` distinct JPEGs; large ones are tiles of a small texture, which decode just as slowly."""
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(count):
            label = number % len(CLASSES)
            rng = np.random.default_rng([number, width])
            picture = textured(label, rng, min(width, 500), min(height, 375))
            if width > 500:
                picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=90)
            archive.writestr(f"{CLASSES[label]}/{number:06d}.jpg", buffer.getvalue())
    return path


def plain(path: Path) -> None:
    """Decode and hash every image once."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
            hashlib.sha256(data).hexdigest()


def ours(path: Path, count: int) -> float:
    """Return the seconds of an ingestion. What is stored stays in a folder beside `path`."""
    processes = len(os.sched_getaffinity(0))
    began = time.perf_counter()
    with IntakePool(IntakeLimits(), processes) as pool:
        found = ingest(
            path,
            FilesystemStore(Path(tempfile.mkdtemp(dir=path.parent))),
            val_fraction=0.2,
            test_fraction=0.0,
            seed=0,
            archive_limits=ArchiveLimits(),
            take_in=pool.take_in_all,
            threads=processes,
            progress=lambda _: None,
        )
        seconds = time.perf_counter() - began
        assert found.report["accepted"] == count, found.report
        return seconds


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=KINDS, default="small")
    parser.add_argument("--images", type=int, help="how many, if not 10,000 or 100 photos")
    options = parser.parse_args()
    count, width, height = KINDS[options.kind]
    count = options.images or count
    freeze_imports()  # torch is here for the figures' sake, and each collection would go through it
    with tempfile.TemporaryDirectory() as scratch:
        path = make(Path(scratch) / "images.zip", count, width, height)
        loop, read = alternate(
            lambda _: count / clock(lambda: plain(path)),
            lambda _: count / ours(path, count),
            options.rounds,
        )
        figures = {
            "kind": options.kind,
            "images": count,
            "pixels": [width, height],
            "loop_images_per_s": spread(loop, 1),
            "ingestion_images_per_s": spread(read, 1),
            **compared(read, loop),
            "target": TARGET,
        }
        emit("ingestion", **figures)
    gc.unfreeze()  # or libraries complain at the end


if __name__ == "__main__":
    main()
