"""Provide what the benchmarks work on: a folder of photographs, given or generated, and a network with its weights."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torchvision
from PIL import Image
from torch import nn

from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import BUNDLED, load_state_dict

CLASSES = ("ants", "bees")
COUNTS = {"train": 240, "val": 150}


def image_folder(data: Path | None, scratch: Path) -> Path:
    """Return the folder that holds train/ and val/: `data` itself, what its zip holds, or generated photographs."""
    if data is None:
        return generated_photographs(scratch / "generated")
    if data.is_file():
        with zipfile.ZipFile(data) as archive:
            archive.extractall(scratch / "unpacked")
        data = scratch / "unpacked"
    if (data / "train").is_dir():
        return data
    return next(path.parent for path in sorted(data.glob("*/train")))


def generated_photographs(folder: Path) -> Path:
    """Write JPEGs of 500 × 375 pixels, as photographs of a data set often are; the class sets hue and stripes."""
    for split, count in COUNTS.items():
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count // len(CLASSES)):
                rng = np.random.default_rng([label, split == "train", number])
                textured(label, rng, 500, 375).save(folder / split / name / f"{number:04d}.jpg", quality=90)
    return folder


def textured(label: int, rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return a noisy picture with stripes."""
    y, x = np.mgrid[0:height, 0:width] / width
    angle, hue = label * 1.1 + rng.normal(0, 0.5), (0.2 + 0.3 * label + rng.normal(0, 0.15)) % 1
    wave = np.sin(2 * np.pi * ((8 + rng.normal(0, 3)) * (x * np.cos(angle) + y * np.sin(angle)) + rng.random()))
    colour = 0.5 + 0.3 * np.cos(2 * np.pi * (hue - np.array([0, 1 / 3, 2 / 3])))
    pixels = colour + 0.15 * wave[..., None] + rng.normal(0, 0.08, (height, width, 3))
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


def weights_file(backbone: str, given: Path | None) -> Path:
    """Return the file with the weights that both sides start from."""
    found = get_backbone(backbone)
    if given is None and not found.bundled:
        raise SystemExit(f"--weights: name the file {found.weights_file}, published at {found.weights_url}")
    return given or BUNDLED / found.weights_file


def torchvision_network(backbone: str, weights: Path, classes: int) -> nn.Module:
    """Return torchvision's own network with the pretrained trunk and a new last layer."""
    network: nn.Module = torchvision.models.get_model(backbone.partition("-")[0], weights=None)
    state = load_state_dict(weights, get_backbone(backbone))
    state = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    missing, unexpected = network.load_state_dict(state, strict=False)
    left_out = [name for name in missing if not name.startswith("fc.") and "num_batches_tracked" not in name]
    assert not left_out, left_out
    assert not unexpected, unexpected
    network.fc = nn.Linear(int(network.get_parameter("fc.weight").shape[1]), classes)
    return network


class Quiet:
    """Observe a run that nobody follows; `each_epoch` is called with its metrics."""

    def __init__(self, each_epoch: Callable[[dict[str, Any]], object] = lambda _: None) -> None:
        self._each_epoch = each_epoch

    def epoch(self, metrics: dict[str, Any]) -> None:
        self._each_epoch(metrics)

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None:
        pass

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        pass

    def should_stop(self) -> bool:
        return False
