"""Reads an ImageFolder from disk: classes and splits from the folders' names, or a split drawn from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from app.vision.data.folder_names import IMAGE_SUFFIXES, SPLIT_FOLDERS, Split
from app.vision.data.samples import Sample
from app.vision.errors import InvalidData

EXAMPLE = "FOLDER/ants/1.jpg, FOLDER/bees/2.jpg (or the same below FOLDER/train, FOLDER/val and FOLDER/test)"


def read_image_folder(
    root: Path, *, val_fraction: float = 0.2, test_fraction: float = 0.0, seed: int = 0
) -> tuple[list[Sample], tuple[str, ...]]:
    """Return the samples and class names (sorted) below `root`; a folder that merely wraps the rest is passed over.

    Where there is a folder train/, splits are taken from the folders' names, and only a missing validation split is
    drawn, from train. Otherwise val and test are drawn. A draw takes the same share of every class and depends on
    the seed and the files' names alone. Raises InvalidData.
    """
    if not (val_fraction > 0 and test_fraction >= 0 and val_fraction + test_fraction < 1):
        raise InvalidData(
            f"--val-fraction {val_fraction:g} and --test-fraction {test_fraction:g}: the first must be above 0, the"
            " second 0 or more, and their sum below 1."
        )
    root = _unwrapped(root)
    parts: dict[Path, Split | None] = {
        path: SPLIT_FOLDERS[path.name.lower()] for path in _folders(root) if path.name.lower() in SPLIT_FOLDERS
    }
    if "train" not in parts.values():
        parts = {}
    found: list[tuple[Path, str, Split | None]] = [
        (path, folder.name, split)
        for part, split in (parts or {root: None}).items()
        for folder in _folders(part)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower().removeprefix(".") in IMAGE_SUFFIXES and not _hidden(path, folder) and path.is_file()
    ]
    if not found:
        raise InvalidData(f"{root} holds no images in class folders: expected {EXAMPLE}.")
    classes = tuple(sorted({name for _, name, _ in found}))
    if not parts:
        drawn = draw_split([(_key(path, root), name) for path, name, _ in found], val_fraction, test_fraction, seed)
    elif "val" not in parts.values():
        drawn = draw_split(
            [(_key(path, root), name) for path, name, split in found if split == "train"], val_fraction, 0.0, seed
        )
    else:
        drawn = {}
    labels = {name: label for label, name in enumerate(classes)}
    return [
        Sample(path, labels[name], drawn.get(_key(path, root), split or "train")) for path, name, split in found
    ], classes


def draw_split(
    items: Sequence[tuple[str, str]], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, Split]:
    """Return a split for each `(key, class)`, by the same shares in every class.

    At least one of each class stays in train.
    A class of two or more has at least one item in val, one of three or more also one in test if any is wanted.
    """
    by_class: dict[str, list[str]] = {}
    for key, name in items:
        by_class.setdefault(name, []).append(key)
    drawn: dict[str, Split] = {}
    for keys in by_class.values():
        # Ordered by hash rather than shuffled: an image added later leaves most of the others where they were.
        keys.sort(key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
        count = len(keys)
        test = min(max(1, round(count * test_fraction)), count - 2) if test_fraction > 0 and count >= 3 else 0
        val = min(max(1, round(count * val_fraction)), count - test - 1)
        for place, key in enumerate(keys):
            drawn[key] = "val" if place < val else "test" if place < val + test else "train"
    return drawn


def _unwrapped(root: Path) -> Path:
    if not root.is_dir():
        hint = ": unpack it first" if root.is_file() else ""
        raise InvalidData(f"{root} is not a folder{hint}; expected {EXAMPLE}.")
    inner = _folders(root)
    # One folder that holds folders wraps the data; one that holds images is a single class, which fit will refuse.
    while len(inner) == 1 and _folders(inner[0]) and inner[0].name.lower() not in SPLIT_FOLDERS:
        root = inner[0]
        inner = _folders(root)
    return root


def _folders(path: Path) -> list[Path]:
    return sorted(item for item in path.iterdir() if item.is_dir() and not item.name.startswith((".", "__MACOSX")))


def _hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


def _key(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
