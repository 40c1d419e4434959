"""The command `python -m app.vision` as a person runs it, and folders of images for it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.images import REPOSITORY
from tests.support.pictures import CLASSES, draw

# One thread: several tests at once on few cores would otherwise wait for each other at every step.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
QUICK = ("--backbone", "resnet18-tiny64", "--input-size", "32", "--no-download")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "app.vision", *map(str, arguments)]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command(*arguments), cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=240
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def make_folder(root: Path, counts: dict[str, int]) -> Path:
    """Draw so many images of every class for each part of `counts`; the part "" has no folder of its own."""
    for offset, (part, count) in enumerate(counts.items()):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                draw(label, 1000 * offset + number).save(root / part / name / f"{number}.png")
    return root
