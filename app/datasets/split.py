"""This module draws train, val and test sets: stratified by class, from the seed and the keys alone."""

import hashlib
from collections.abc import Sequence

from app.core.errors import FieldError, Invalid
from app.vision.data.folder_names import Split


def draw_split(
    items: Sequence[tuple[str, str]], *, val_fraction: float = 0.2, test_fraction: float = 0.0, seed: int = 0
) -> dict[str, Split]:
    """Assign each `(key, label)` a split, in every class by the same fractions, rounded to whole images.

    Each class of two items or more has at least one in train and one in val; one of three or more also has at least
    one in test where `test_fraction` > 0. The order of `items` does not matter. Keys are unique (`ValueError`).
    Raises `Invalid` unless 0 < `val_fraction`, 0 <= `test_fraction` and their sum is below 1.
    """
    _check_fractions(val_fraction, test_fraction)
    by_label: dict[str, list[str]] = {}
    for key, label in items:
        by_label.setdefault(label, []).append(key)
    drawn: dict[str, Split] = {}
    for keys in by_label.values():
        # Ordered by hash rather than shuffled: the same on every version of Python, and an image that is added
        # later leaves most of the others where they were.
        keys.sort(key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
        val, test = _sizes(len(keys), val_fraction, test_fraction)
        for place, key in enumerate(keys):
            drawn[key] = "val" if place < val else "test" if place < val + test else "train"
    if len(drawn) != len(items):
        raise ValueError("the keys of the items to split are not unique")
    return drawn


def fill_split(
    items: Sequence[tuple[str, str, Split | None]], *, val_fraction: float = 0.2, seed: int = 0
) -> dict[str, Split]:
    """Complete the splits `(key, label, split)` that an upload brings along.

    An item without a split joins train. Where nothing is in val, val is drawn from train, as by `draw_split`; a test
    set is never touched. Raises as `draw_split` does.
    """
    given: dict[str, Split] = {key: split or "train" for key, _, split in items}
    if len(given) != len(items):
        raise ValueError("the keys of the items to split are not unique")
    if "val" in given.values():
        return given
    train = [(key, label) for key, label, _ in items if given[key] == "train"]
    return given | draw_split(train, val_fraction=val_fraction, seed=seed)


def _sizes(count: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Return how many of `count` items go to val and to test; at least one stays in train."""
    if count < 2:
        return 0, 0
    test = min(max(1, round(count * test_fraction)), count - 2) if test_fraction > 0 and count >= 3 else 0
    val = min(max(1, round(count * val_fraction)), count - test - 1)
    return val, test


def _check_fractions(val_fraction: float, test_fraction: float) -> None:
    # Written so that NaN fails too.
    if val_fraction > 0 and test_fraction >= 0 and val_fraction + test_fraction < 1:
        return
    message = (
        f"val_fraction is {val_fraction} and test_fraction {test_fraction}. The first must be above 0, the second "
        "0 or more, and together below 1 so that something is left to train on."
    )
    raise Invalid(message, code="bad_split_fractions", errors=[FieldError("val_fraction", message)])
