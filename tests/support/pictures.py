"""Pictures of coloured shapes, easy to tell apart, and an observer that remembers what it heard."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from app.vision.data.folder_names import Split
from app.vision.data.samples import Sample

CLASSES = ("disc", "square", "stripes")


def draw(label: int, seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """A noisy picture of one class."""
    rng = np.random.default_rng([label, seed])
    image = Image.fromarray(rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8))
    pen = ImageDraw.Draw(image)
    x, y = rng.integers(4, 16, 2)
    colour = tuple(int(value) for value in rng.integers(150, 255, 3))
    if label == 0:
        pen.ellipse((x, y, x + 30, y + 30), fill=colour)
    elif label == 1:
        pen.rectangle((x, y, x + 26, y + 26), fill=colour)
    else:
        for row in range(0, size[1], 8):
            pen.line((0, row, size[0], row), fill=colour, width=3)
    return image


def make_samples(folder: Path, train: int = 8, val: int = 4, test: int = 2) -> list[Sample]:
    """Files of every class in every split, the classes taking turns."""
    samples = []
    counts: dict[Split, int] = {"train": train, "val": val, "test": test}
    for offset, (split, count) in enumerate(counts.items()):
        for number in range(count):
            for label, name in enumerate(CLASSES):
                path = folder / f"{split}-{name}-{number}.png"
                draw(label, 1000 * offset + number).save(path)
                samples.append(Sample(path, label, split))
    return samples


class Recorder:
    """Remembers every report; stops the run at the `stop_after`-th question, keeping a copy of its checkpoint.

    Where `keep` is a folder, a copy of every checkpoint goes into it."""

    def __init__(self, stop_after: int | None = None, keep: Path | None = None) -> None:
        self.stop_after = stop_after
        self.keep = keep
        self.asked = 0
        self.phases: list[tuple[str, float, float | None]] = []
        self.epochs: list[dict[str, Any]] = []
        self.checkpoints: list[tuple[int, int]] = []
        self.best: list[tuple[int, int]] = []

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        self.phases.append((phase, fraction, eta_s))

    def epoch(self, metrics: dict[str, Any]) -> None:
        self.epochs.append(metrics)

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        self.checkpoints.append((epoch, step))
        if best:
            self.best.append((epoch, step))
        if self.keep is not None and self.keep.is_dir():
            shutil.copy(path, self.keep / f"{epoch}-{step}.safetensors")
        elif self.keep is not None:
            shutil.copy(path, self.keep)

    def should_stop(self) -> bool:
        # Decoding and features ask too; only questions of the training phase count here.
        if not self.phases or self.phases[-1][0] != "training":
            return False
        self.asked += 1
        return self.asked == self.stop_after
