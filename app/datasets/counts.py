"""This module counts the images of each class in each split."""

from collections.abc import Iterable, Mapping

from app.vision.data.folder_names import Split


def count_labels(items: Iterable[tuple[str, Split]]) -> dict[str, dict[str, int]]:
    """Return how many images there are by label and split, from each image's label and split."""
    counts: dict[str, dict[str, int]] = {}
    for label, split in items:
        by_split = counts.setdefault(label, {})
        by_split[split] = by_split.get(split, 0) + 1
    return counts


def by_split(counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Return the same by split and then class, for people to read; splits in the order train, val, test."""
    order = [split for split in ("train", "val", "test") if any(split in found for found in counts.values())]
    return {split: {label: counts[label].get(split, 0) for label in sorted(counts)} for split in order}
