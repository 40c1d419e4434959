import hashlib
import json
import random

import pytest

from app.core.errors import Malformed
from app.datasets.manifest import ManifestImage, manifest_sha256, read_manifest, write_manifest


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


ITEMS = [
    ManifestImage(digest("3"), "Käfer", "val", "b.jpg"),
    ManifestImage(digest("1"), "ants", "train", "a.jpg"),
    ManifestImage(digest("2"), "Käfer", "train", "c.jpg"),
]
CLASSES = ["ants", "Käfer"]


def test_the_bytes_are_canonical() -> None:
    lines = write_manifest(ITEMS, CLASSES).decode().splitlines(keepends=True)
    assert lines == [
        '{"classes":["Käfer","ants"],"format":"graftwork-manifest","version":1}\n',
        f'{{"label":"Käfer","sha256":"{digest("2")}","split":"train"}}\n',
        f'{{"label":"ants","sha256":"{digest("1")}","split":"train"}}\n',
        f'{{"label":"Käfer","sha256":"{digest("3")}","split":"val"}}\n',
    ]


def test_same_content_same_hash() -> None:
    rng = random.Random(0)
    renamed = [ManifestImage(item.sha256, item.label, item.split, f"other/{item.name}") for item in ITEMS]
    written = write_manifest(ITEMS, CLASSES)
    again = write_manifest(rng.sample(renamed, 3), CLASSES[::-1])
    assert manifest_sha256(written) == manifest_sha256(again) == hashlib.sha256(written).hexdigest()
    moved = [ManifestImage(digest("3"), "Käfer", "test", "b.jpg"), *ITEMS[1:]]
    assert manifest_sha256(write_manifest(moved, CLASSES)) != manifest_sha256(written)


def test_reads_what_was_written() -> None:
    manifest = read_manifest(write_manifest(ITEMS, CLASSES))
    assert manifest.classes == ("Käfer", "ants")
    assert sorted(manifest.items, key=lambda item: item.sha256) == sorted(ITEMS, key=lambda item: item.sha256)
    assert all(item.name == "" for item in manifest.items)
    assert read_manifest(write_manifest([], ["a"])).items == ()


def test_labels_with_line_breaks_survive() -> None:
    item = ManifestImage(digest("1"), 'a\n"b"\u2028\r', "train", "x")
    assert read_manifest(write_manifest([item], [item.label])).items == (item,)


@pytest.mark.parametrize(
    "item",
    [
        ManifestImage(digest("1"), "wasps", "train"),
        ManifestImage(digest("1"), "ants", "dev"),
        ManifestImage(digest("1").upper(), "ants", "train"),
        ManifestImage("abc", "ants", "train"),
    ],
)
def test_nothing_wrong_is_written_or_read(item: ManifestImage) -> None:
    with pytest.raises(ValueError, match=r"label|split|SHA-256"):
        write_manifest([item], CLASSES)
    line = json.dumps({"label": item.label, "sha256": item.sha256, "split": item.split}).encode()
    with pytest.raises(Malformed, match="Line 2"):
        read_manifest(write_manifest([], CLASSES) + line + b"\n")


def test_classes_are_unique() -> None:
    with pytest.raises(ValueError, match="unique"):
        write_manifest([], ["ants", "ants"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b"not json",
        b'{"classes":["a"],"format":"graftwork-manifest","version":2}',
        b'{"classes":["a"],"format":"other","version":1}',
        b'{"classes":["b","a"],"format":"graftwork-manifest","version":1}',
        b'{"classes":[["a"]],"format":"graftwork-manifest","version":1}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(Malformed, match="Line 1") as caught:
        read_manifest(data)
    assert caught.value.code == "malformed_manifest"


@pytest.mark.parametrize("line", [b"", b"3", b"{}", b'{"label":"a","sha256":1,"split":"train"}', b'{"label":["a"]}'])
def test_a_damaged_line_is_named(line: bytes) -> None:
    good = write_manifest([ManifestImage(digest("1"), "a", "train")], ["a"])
    with pytest.raises(Malformed, match="Line 3"):
        read_manifest(good + line + b"\n")


def test_metadata_is_content_and_none_changes_nothing() -> None:
    plain = ManifestImage(digest("1"), "ants", "train")
    told = ManifestImage(digest("1"), "ants", "train", metadata={"site": "A", "boxes": [{"box": [1.5, 2, 3, 4]}]})
    again = ManifestImage(digest("1"), "ants", "train", metadata={"boxes": [{"box": [1.5, 2, 3, 4]}], "site": "A"})
    written = [write_manifest([item], ["ants"]) for item in (plain, told, again)]
    assert b"metadata" not in written[0]
    assert written[0] != written[1] == written[2]
    (item,) = read_manifest(written[1]).items
    assert item.metadata == told.metadata
