import pytest

from app.core.errors import Invalid
from app.datasets.formats.layout import NO_SPLIT, Layout, Placement, check_counts, check_layout, read_layout

PAIR = ("ants/1.jpg", "ants/2.jpg", "bees/3.jpg", "bees/4.jpg")


def labels(layout: Layout) -> dict[str, tuple[str | None, str]]:
    return {name: (placement.split, placement.label) for name, placement in layout.placements.items()}


def codes(layout: Layout) -> dict[str, str]:
    return {skipped.name: skipped.code for skipped in layout.skipped}


def problems(layout: Layout) -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        check_layout(layout)
    return {error.field: error.code for error in caught.value.errors}


def test_class_folders() -> None:
    layout = read_layout(PAIR)
    assert layout.placements["bees/3.jpg"] == Placement("bees", None)
    assert set(labels(layout).values()) == {(None, "ants"), (None, "bees")}
    assert (layout.has_split, layout.skipped, layout.ignored) == (False, [], 0)
    check_layout(layout)


@pytest.mark.parametrize("top", ["", "hymenoptera/", "a/b/c/"])
@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("val", "val"),
        ("Valid", "val"),
        ("VALIDATION", "val"),
        ("dev", "val"),
        ("test", "test"),
        ("Testing", "test"),
    ],
)
def test_split_folders_in_any_case_and_wrapping(top: str, folder: str, split: str) -> None:
    names = [f"{top}Train/{name}" for name in PAIR] + [f"{top}{folder}/{name}" for name in PAIR]
    layout = read_layout(names)
    assert layout.has_split
    assert labels(layout)[f"{top}Train/ants/1.jpg"] == ("train", "ants")
    assert labels(layout)[f"{top}{folder}/bees/3.jpg"] == (split, "bees")
    assert len(layout.placements) == 8
    check_layout(layout)


@pytest.mark.parametrize("top", ["", "data/", "data/set/"])
def test_folders_below_a_class_belong_to_it(top: str) -> None:
    layout = read_layout([f"{top}ants/red/old/1.jpg", f"{top}ants/2.jpg", f"{top}bees/x/3.jpg", f"{top}bees/4.jpg"])
    assert [label for _, label in labels(layout).values()] == ["ants", "ants", "bees", "bees"]


def test_litter_is_counted_and_not_named() -> None:
    litter = [
        "__MACOSX/ants/._1.jpg",
        "ants/.DS_Store",
        "ants/Thumbs.db",
        "bees/desktop.ini",
        ".git/x.jpg",
        "a/.b/1.jpg",
    ]
    layout = read_layout([*PAIR, *litter])
    assert (layout.ignored, layout.skipped, len(layout.placements)) == (len(litter), [], 4)


def test_what_is_no_image_is_skipped_with_a_remedy() -> None:
    layout = read_layout([*PAIR, "README.md", "ants/labels.csv", "ants/jpg", "bees/photo.HEIC"])
    assert codes(layout) == dict.fromkeys(
        ["README.md", "ants/labels.csv", "ants/jpg", "bees/photo.HEIC"], "not_an_image"
    )
    assert all("JPEG" in skipped.remedy for skipped in layout.skipped)
    assert "no extension" in layout.skipped[2].reason


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "tif", "TIFF", "gif"])
def test_image_extensions(suffix: str) -> None:
    assert f"ants/a.b.{suffix}" in read_layout([f"ants/a.b.{suffix}"]).placements


def test_images_outside_class_folders_are_skipped() -> None:
    layout = read_layout(["cover.jpg", "set/cover.jpg", *(f"set/{name}" for name in PAIR)])
    assert codes(layout) == {"cover.jpg": "no_class_folder", "set/cover.jpg": "no_class_folder"}
    assert len(layout.placements) == 4


def test_a_flat_test_folder_has_no_labels() -> None:
    layout = read_layout([*(f"train/{name}" for name in PAIR), "test/1.jpg", "test/2.jpg"])
    assert codes(layout) == {"test/1.jpg": "no_class_folder", "test/2.jpg": "no_class_folder"}
    assert layout.has_split
    check_layout(layout)


def test_folders_beside_the_splits() -> None:
    layout = read_layout([*(f"train/{name}" for name in PAIR), "extra/ants/9.jpg", "figures/plot.png"])
    assert codes(layout) == {"extra/ants/9.jpg": "outside_split", "figures/plot.png": "outside_split"}


def test_a_class_may_be_called_train() -> None:
    layout = read_layout(["bus/1.jpg", "bus/2.jpg", "train/3.jpg", "train/4.jpg", "tram/5.jpg", "tram/6.jpg"])
    assert not layout.has_split
    assert labels(layout)["train/3.jpg"] == (None, "train")
    check_layout(layout)


@pytest.mark.parametrize(
    "names",
    [["cats/1.jpg", "cats/2.jpg"], ["top/cats/1.jpg", "top/cats/2.jpg"], ["train/cats/1.jpg", "train/cats/2.jpg"]],
)
def test_a_single_class_stays_a_class(names: list[str]) -> None:
    layout = read_layout(names)
    assert {label for _, label in labels(layout).values()} == {"cats"}
    assert problems(layout) == {"cats": "single_class"}


@pytest.mark.parametrize("names", [[], ["1.jpg", "2.jpg"], ["train/1.jpg", "val/2.jpg"], ["notes.txt"]])
def test_no_images_explains_the_layout(names: list[str]) -> None:
    layout = read_layout(names)
    with pytest.raises(Invalid, match=r"ants/1\.jpg") as caught:
        check_layout(layout)
    assert caught.value.code == "no_images"
    assert len(layout.skipped) == len(names)
    for skipped in layout.skipped:
        assert f"× {skipped.code}" in caught.value.detail


def test_all_problems_at_once() -> None:
    names = [f"train/{name}" for name in PAIR]
    names += ["train/wasps/5.jpg", "val/flies/6.jpg", "test/moths/7.jpg", "train/Ants/8.jpg", "train/Ants/9.jpg"]
    with pytest.raises(Invalid) as caught:
        check_layout(read_layout(names))
    found = {(error.field, error.code) for error in caught.value.errors}
    assert found == {
        ("wasps", "class_too_small"),
        ("flies", "class_missing_from_train"),
        ("moths", "class_missing_from_train"),
        ("ants", "class_names_collide"),
    }
    assert caught.value.code == "unusable_layout"
    assert "3 more problems" in caught.value.detail


def test_problems_name_the_class_and_the_count() -> None:
    with pytest.raises(Invalid, match="The class wasps has 1 usable image to train") as caught:
        check_layout(read_layout([*PAIR, "wasps/5.jpg"]))
    assert caught.value.code == "class_too_small"


def test_a_split_without_train() -> None:
    layout = read_layout([*(f"val/{name}" for name in PAIR), *(f"test/{name}" for name in PAIR)])
    assert problems(layout) == {"archive": "no_train_split"}


def test_counts_after_a_split_was_drawn() -> None:
    check_counts({"ants": {"train": 1, "val": 1}, "bees": {"train": 2, "val": 0}})
    check_counts({"ants": {NO_SPLIT: 2}, "bees": {NO_SPLIT: 2}})


def test_counts_of_zero_are_classes_that_are_gone() -> None:
    with pytest.raises(Invalid) as caught:
        check_counts({"ants": {"train": 5}, "bees": {"train": 0}})
    assert caught.value.code == "single_class"
    with pytest.raises(Invalid) as caught:
        check_counts({"ants": {NO_SPLIT: 0}})
    assert caught.value.code == "no_images"


def test_test_images_train_nothing() -> None:
    with pytest.raises(Invalid) as caught:
        check_counts({"ants": {"train": 1, "test": 50}, "bees": {"train": 2}})
    assert [error.field for error in caught.value.errors] == ["ants"]


def test_too_many_classes() -> None:
    check_counts({str(i): {"train": 2} for i in range(10_000)})
    with pytest.raises(Invalid) as caught:
        check_counts({str(i): {"train": 2} for i in range(10_001)})
    assert caught.value.code == "too_many_classes"


def test_a_class_name_that_no_folder_could_have() -> None:
    long = "x" * 256
    layout = read_layout([*PAIR, f"{long}/1.jpg", f"{long}/2.jpg"])
    assert problems(layout) == {f"{long[:60]}…": "class_name_too_long"}
    check_layout(read_layout([*PAIR, f"{long[:255]}/1.jpg", f"{long[:255]}/2.jpg"]))
