"""Checks the samples that a classifier is to learn from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from app.vision.data.samples import Sample
from app.vision.errors import InvalidData


def check_samples(samples: Sequence[Sample], classes: Sequence[str]) -> None:
    """Raise InvalidData, naming the first thing that makes training pointless or impossible."""
    if len(classes) < 2:
        raise InvalidData(f"{len(classes)} class(es): at least two are needed to tell apart.")
    if len(set(classes)) < len(classes):
        raise InvalidData("Two classes have the same name.")
    for sample in samples:
        if not 0 <= sample.label < len(classes):
            raise InvalidData(f"{sample.path.name} has label {sample.label}, but there are {len(classes)} classes.")
    splits = Counter(sample.split for sample in samples)
    if not splits["val"]:
        raise InvalidData("No validation images: put some of them into the split 'val', a fifth is usual.")
    trained = Counter(sample.label for sample in samples if sample.split == "train")
    if missing := [name for label, name in enumerate(classes) if not trained[label]]:
        raise InvalidData(f"No training images of {', '.join(missing[:5])}: add some, or leave the class out.")
