"""Hold three images of an archive out of the training, so that the demo can classify unseen images."""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from app.cli.errors import CommandError
from app.datasets.formats.archive import ArchiveLimits, members, names
from app.datasets.formats.layout import Layout, read_layout

_IMAGES = 3
_LEAST_LEFT = 2  # images that a class must keep


@dataclass(frozen=True, slots=True)
class HeldOut:
    name: str
    data: bytes
    label: str


def hold_out(archive: Path, rest: Path) -> tuple[Path, list[HeldOut]]:
    """Write `archive` without three images to the zip `rest`; return `rest` and these images.

    Raises `CommandError` if a class would have too few images left.
    """
    limits = ArchiveLimits()
    layout = read_layout([entry.name for entry in names(archive, limits)])
    chosen = _choose(layout)
    held_out = []
    with zipfile.ZipFile(rest, "w", zipfile.ZIP_STORED) as packed:
        for entry, read in members(archive, limits):
            if entry.name in chosen:
                held_out.append(HeldOut(entry.name, read(), layout.placements[entry.name].label))
            else:
                packed.writestr(entry.name, read())
    return rest, held_out


def _choose(layout: Layout) -> set[str]:
    """Return the names of three images, of different classes if possible, chosen by the hash of their names."""
    by_label: dict[str, list[str]] = {}
    for name, placement in layout.placements.items():
        by_label.setdefault(placement.label, []).append(name)
    for found in by_label.values():
        found.sort(key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen: list[str] = []
    while len(chosen) < _IMAGES:
        before = len(chosen)
        for label in sorted(by_label):
            if len(chosen) < _IMAGES and len(by_label[label]) > _LEAST_LEFT:
                chosen.append(by_label[label].pop())
        if len(chosen) == before:
            raise CommandError(
                "The demo holds out three images and then needs two images of each class. Add some images."
            )
    return set(chosen)
