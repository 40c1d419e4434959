"""Samples are what a run learns from and is measured on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.vision.data.folder_names import Split


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds an image with its label, which a task reads in its own way: to a classifier it is the index of a class.

    `sha256` is that of the image's file; where it is empty the file is read for it.
    """

    path: Path
    label: int
    split: Split
    sha256: str = ""
