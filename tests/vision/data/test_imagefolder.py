"""Classes and splits from folders, and the split that is drawn where there is none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from app.vision.data.imagefolder import draw_split, read_image_folder
from app.vision.errors import InvalidData


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def splits(root: Path, **options: float) -> dict[str, str]:
    samples, _ = read_image_folder(root, **options)  # type: ignore[arg-type]
    return {sample.path.relative_to(root).as_posix(): sample.split for sample in samples}


def test_splits_come_from_the_folders_names(tmp_path: Path) -> None:
    make(tmp_path, "train/b/1.jpg", "train/a/2.PNG", "valid/a/3.webp", "test/b/4.gif", "notes.txt", "train/a/read.me")
    samples, classes = read_image_folder(tmp_path)
    assert classes == ("a", "b")
    assert [(sample.path.name, sample.label, sample.split) for sample in samples] == [
        ("4.gif", 1, "test"),
        ("2.PNG", 0, "train"),
        ("1.jpg", 1, "train"),
        ("3.webp", 0, "val"),
    ]


def test_a_missing_validation_split_is_drawn_from_train_alone(tmp_path: Path) -> None:
    make(tmp_path, *(f"{part}/{name}/{n}.jpg" for part in ("train", "test") for name in "ab" for n in range(5)))
    drawn = splits(tmp_path)
    assert Counter(drawn.values()) == {"train": 8, "val": 2, "test": 10}
    assert all(path.startswith("test/") == (split == "test") for path, split in drawn.items())


def test_a_split_is_stratified_and_depends_on_the_seed(tmp_path: Path) -> None:
    make(tmp_path, *(f"wrapping/{name}/{n}.jpg" for name in "ab" for n in range(20 if name == "a" else 10)))
    drawn = splits(tmp_path, val_fraction=0.2, test_fraction=0.1)
    counted = Counter((path.split("/")[1], split) for path, split in drawn.items())
    assert counted == {
        ("a", "train"): 14,
        ("a", "val"): 4,
        ("a", "test"): 2,
        ("b", "train"): 7,
        ("b", "val"): 2,
        ("b", "test"): 1,
    }
    assert drawn == splits(tmp_path, val_fraction=0.2, test_fraction=0.1)
    assert drawn != splits(tmp_path, val_fraction=0.2, test_fraction=0.1, seed=1)


def test_a_draw_does_not_depend_on_the_order_and_always_leaves_something_to_train_on() -> None:
    items = [(str(n), "big") for n in range(30)] + [("x", "small"), ("y", "small"), ("z", "single")]
    drawn = draw_split(items, 0.45, 0.45, 3)
    assert drawn == draw_split(items[::-1], 0.45, 0.45, 3)
    assert {drawn["x"], drawn["y"]} == {"train", "val"}
    assert drawn["z"] == "train"


def test_a_folder_called_val_is_a_class_where_there_is_no_train(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/{n}.jpg" for name in ("val", "other") for n in range(3)))
    assert read_image_folder(tmp_path)[1] == ("other", "val")


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "a/1.jpg", "a/._1.jpg", "a/.thumbs/1.jpg", "b/deep/er/2.jpg", ".git/3.jpg", "__MACOSX/a/4.jpg")
    assert sorted(splits(tmp_path)) == ["a/1.jpg", "b/deep/er/2.jpg"]


@pytest.mark.parametrize(
    ("name", "says"),
    [("nowhere", "not a folder"), ("file.zip", "unpack it first"), ("empty", "no images in class folders")],
)
def test_what_cannot_be_read_says_what_is_expected(tmp_path: Path, name: str, says: str) -> None:
    make(tmp_path, "file.zip", "empty/loose.jpg")
    with pytest.raises(InvalidData, match=says) as error:
        read_image_folder(tmp_path / name)
    assert "FOLDER/ants/1.jpg" in str(error.value)


@pytest.mark.parametrize(("val", "test"), [(0.0, 0.0), (0.5, 0.5), (0.2, -0.1), (float("nan"), 0.0)])
def test_shares_that_leave_nothing_are_refused(tmp_path: Path, val: float, test: float) -> None:
    with pytest.raises(InvalidData, match="--val-fraction"):
        read_image_folder(make(tmp_path, "a/1.jpg"), val_fraction=val, test_fraction=test)
