"""Images and archives for tests: synthetic textures that a linear head can tell apart, packed like uploads."""

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
_GOLDEN = 0.6180339887498949


def photo(label_index: int, seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """An RGB texture of `size` (width, height) px. The class sets hue, stripe angle, stripe frequency and shape.

    All of them vary with `seed`, as do position, brightness and noise; the same arguments give the same pixels.
    """
    width, height = size
    rng = np.random.default_rng([label_index, seed])
    y, x = np.mgrid[0:height, 0:width]
    u, v = x / width - 0.5, y / height - 0.5

    angle = np.pi * (label_index * _GOLDEN % 1) + rng.normal(0, 0.12)
    frequency = 3 + 3 * (label_index % 4) + rng.normal(0, 0.3)
    wave = np.sin(2 * np.pi * (frequency * (u * np.cos(angle) + v * np.sin(angle)) + rng.random()))

    hue = (label_index * _GOLDEN + rng.normal(0, 0.03)) % 1
    colour = 0.5 + 0.35 * np.cos(2 * np.pi * (hue - np.array([0, 1 / 3, 2 / 3])))
    pixels = colour + 0.18 * wave[..., None]

    du, dv, radius = u - rng.uniform(-0.2, 0.2), v - rng.uniform(-0.2, 0.2), rng.uniform(0.15, 0.25)
    disc, square, diamond = np.hypot(du, dv), np.maximum(abs(du), abs(dv)), abs(du) + abs(dv)
    inside = (disc, square, diamond)[label_index % 3] < radius
    pixels = np.where(inside[..., None], 1 - colour, pixels)

    pixels = pixels * rng.uniform(0.8, 1.15) + rng.normal(0, 0.06, pixels.shape)
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


def jpeg(image: Image.Image, **options: Any) -> bytes:
    return encode(image, "JPEG", **options)


def png(image: Image.Image, **options: Any) -> bytes:
    return encode(image, "PNG", **options)


def gif(image: Image.Image, **options: Any) -> bytes:
    return encode(image, "GIF", **options)


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def folder(
    classes: Mapping[str, int | bytes],
    split: Sequence[str] | Mapping[str, int] | None = None,
    top: str | None = None,
    size: tuple[int, int] = (64, 64),
) -> dict[str, bytes]:
    """Names and contents of an ImageFolder upload.

    `classes` is either label → number of JPEGs, or full name → content as it is. `split` names split folders: each
    gets that number of every class again (other images), or its own number where it is a mapping. `top` wraps all.
    """
    prefix = f"{top}/" if top else ""
    files: dict[str, bytes] = {}
    for index, (label, content) in enumerate(classes.items()):
        if isinstance(content, bytes):
            files[prefix + label] = content
            continue
        number = 0
        for part in split if split is not None else [""]:
            count = split[part] if isinstance(split, Mapping) else content
            for _ in range(count):
                name = f"{part}/{label}/{number:04d}.jpg".lstrip("/")
                files[prefix + name] = jpeg(photo(index, number, size), quality=90)
                number += 1
    return files


def folder_zip(
    classes: Mapping[str, int | bytes],
    split: Sequence[str] | Mapping[str, int] | None = None,
    top: str | None = None,
    size: tuple[int, int] = (64, 64),
) -> bytes:
    """The upload that `folder` describes, as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in folder(classes, split, top, size).items():
            archive.writestr(name, content)
    return buffer.getvalue()


def folder_tar(
    classes: Mapping[str, int | bytes],
    split: Sequence[str] | Mapping[str, int] | None = None,
    top: str | None = None,
    size: tuple[int, int] = (64, 64),
    *,
    compress: bool = True,
) -> bytes:
    """The upload that `folder` describes, as a tar.gz, or as a tar without `compress`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if compress else "w") as archive:
        for name, content in folder(classes, split, top, size).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def folder_tar_zst(
    classes: Mapping[str, int | bytes], split: Sequence[str] | Mapping[str, int] | None = None, top: str | None = None
) -> bytes:
    """The upload that `folder` describes, as a tar.zst."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(folder_tar(classes, split, top, compress=False))


def hymenoptera() -> Path | None:
    """A zip of real photographs of ants and bees, where this machine has it: 245 for training, 153 to validate."""
    configured = os.environ.get("GRAFT_TEST_HYMENOPTERA")
    path = Path(configured) if configured else REPOSITORY.parent / "shared" / "data" / "hymenoptera.zip"
    return path if path.is_file() else None
