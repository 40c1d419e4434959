import random
from collections import Counter

import pytest

from app.core.errors import Invalid
from app.datasets.formats.layout import Split
from app.datasets.split import draw_split, fill_split


def items_of(**classes: int) -> list[tuple[str, str]]:
    return [(f"{label}/{i}", label) for label, count in classes.items() for i in range(count)]


def tally(items: list[tuple[str, str]], drawn: dict[str, Split]) -> dict[str, dict[str, int]]:
    return {label: dict(Counter(drawn[key] for key, of in items if of == label)) for _, label in items}


def test_every_class_is_divided_by_the_fractions() -> None:
    items = items_of(ants=100, bees=40)
    drawn = draw_split(items, val_fraction=0.2, test_fraction=0.1)
    assert tally(items, drawn) == {
        "ants": {"train": 70, "val": 20, "test": 10},
        "bees": {"train": 28, "val": 8, "test": 4},
    }


@pytest.mark.parametrize("val_fraction", [0.001, 0.2, 0.5, 0.98])
@pytest.mark.parametrize("test_fraction", [0.0, 0.01])
def test_small_classes_get_a_share(val_fraction: float, test_fraction: float) -> None:
    for count in range(1, 12):
        items = items_of(ants=count)
        shares = tally(items, draw_split(items, val_fraction=val_fraction, test_fraction=test_fraction))["ants"]
        assert shares["train"] >= 1
        assert (shares.get("val", 0) >= 1) == (count >= 2)
        assert (shares.get("test", 0) >= 1) == (count >= 3 and test_fraction > 0)
        assert sum(shares.values()) == count


def test_only_the_seed_and_the_keys_matter() -> None:
    items = items_of(ants=50, bees=30)
    shuffled = random.Random(0).sample(items, len(items))
    assert draw_split(items, seed=3) == draw_split(shuffled, seed=3)
    assert draw_split(items, seed=3) != draw_split(items, seed=4)


def test_a_drawn_split_never_changes_between_releases() -> None:
    drawn = draw_split(items_of(a=6), val_fraction=0.34, test_fraction=0.17, seed=1)
    assert drawn == {"a/0": "test", "a/1": "train", "a/2": "val", "a/3": "train", "a/4": "val", "a/5": "train"}


@pytest.mark.parametrize("fractions", [(0.0, 0.0), (-0.1, 0), (0.5, 0.5), (0.2, -0.1), (1.0, 0), (float("nan"), 0)])
def test_fractions_out_of_range(fractions: tuple[float, float]) -> None:
    with pytest.raises(Invalid, match="val_fraction"):
        draw_split(items_of(ants=4), val_fraction=fractions[0], test_fraction=fractions[1])


def test_keys_are_unique() -> None:
    with pytest.raises(ValueError, match="unique"):
        draw_split([("1", "ants"), ("1", "bees")])
    with pytest.raises(ValueError, match="unique"):
        fill_split([("1", "ants", "train"), ("1", "bees", "val")])


def test_given_train_and_val_stay() -> None:
    given: list[tuple[str, str, Split | None]] = [("1", "a", "train"), ("2", "a", "val"), ("3", "b", None)]
    assert fill_split(given) == {"1": "train", "2": "val", "3": "train"}


def test_val_is_drawn_from_train_and_never_from_test() -> None:
    given: list[tuple[str, str, Split | None]] = [(key, label, "train") for key, label in items_of(ants=20, bees=10)]
    given += [(f"test/{i}", "ants", "test") for i in range(10)]
    filled = fill_split(given, val_fraction=0.2, seed=5)
    assert all(filled[f"test/{i}"] == "test" for i in range(10))
    assert Counter(filled.values()) == {"train": 24, "val": 6, "test": 10}
    train = [(key, label) for key, label, split in given if split == "train"]
    assert filled.items() >= draw_split(train, val_fraction=0.2, seed=5).items()


def test_nothing_to_split() -> None:
    assert draw_split([]) == {}
    assert fill_split([]) == {}
