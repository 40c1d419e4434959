"""What the images of an archive are, by a file of labels, COCO or VOC annotations inside it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import Invalid
from app.datasets.formats.archive import ArchiveLimits
from app.datasets.formats.layout import Layout
from app.datasets.formats.placement import may_hold_labels
from app.datasets.sources.source import ArchiveSource
from tests.support.images import folder_tar, folder_tar_zst, folder_zip

Read = Callable[..., Layout]
IMAGES = {f"images/{n}.jpg": b"" for n in range(1, 5)}
CSV = "path,label,split\nimages/1.jpg,ants,train\nimages/2.jpg,ants,val\nimages/3.jpg,bees,\nimages/4.jpg,bees,test\n"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(files: Mapping[str, bytes | str], pack: Callable[..., bytes] = folder_zip, **limits: int) -> Layout:
        path = tmp_path / "upload"
        path.write_bytes(pack({name: text.encode() if isinstance(text, str) else text for name, text in files.items()}))
        return ArchiveSource(path, ArchiveLimits(**limits)).layout()

    return read


def placed(layout: Layout) -> dict[str, tuple[str, str | None]]:
    return {name: (one.label, one.split) for name, one in layout.placements.items()}


def codes(layout: Layout) -> dict[str, str]:
    assert all(skipped.reason.endswith(".") and skipped.remedy.endswith(".") for skipped in layout.skipped)
    return {skipped.name: skipped.code for skipped in layout.skipped}


EXPECTED = {
    "images/1.jpg": ("ants", "train"),
    "images/2.jpg": ("ants", "val"),
    "images/3.jpg": ("bees", None),
    "images/4.jpg": ("bees", "test"),
}


@pytest.mark.parametrize("pack", [folder_zip, folder_tar, folder_tar_zst])
@pytest.mark.parametrize("top", ["", "pets/", "a/b/"])
def test_labels_csv_says_label_and_split_of_each_image(read: Read, pack: Callable[..., bytes], top: str) -> None:
    layout = read({f"{top}{name}": content for name, content in {**IMAGES, "labels.csv": CSV}.items()}, pack)
    assert placed(layout) == {f"{top}{name}": value for name, value in EXPECTED.items()}
    assert (layout.has_split, layout.skipped) == (True, [])


@pytest.mark.parametrize(
    "text",
    [
        CSV.replace(",", ";"),
        CSV.replace(",", "\t"),
        "\ufeff" + CSV.replace("\n", "\r\n"),
        CSV.replace("path,label,split", "FileName,Class,SPLIT"),
        CSV.replace("images/", "./images/").replace("val", "Validation"),
        CSV.replace("images/", "images\\"),
        CSV.replace("images/", ""),
        CSV.replace("images/1.jpg,ants", '"images/1.jpg","ants"') + "\n\n",
    ],
)
def test_spellings_of_a_csv(read: Read, text: str) -> None:
    assert placed(read({**IMAGES, "labels.csv": text})) == EXPECTED


def test_labels_jsonl_and_further_columns_are_kept(read: Read) -> None:
    lines = [
        {"path": "images/1.jpg", "label": "ants", "split": "train", "sex": "f", "age": 3, "boxes": [[1, 2.5]]},
        {"file_name": "images/2.jpg", "label": 7},
    ]
    layout = read({**IMAGES, "labels.jsonl": "\n".join(map(json.dumps, lines)) + "\n"})
    assert placed(layout) == {"images/1.jpg": ("ants", "train"), "images/2.jpg": ("7", None)}
    assert layout.placements["images/1.jpg"].metadata == {"sex": "f", "age": 3, "boxes": [[1, 2.5]]}
    assert layout.placements["images/2.jpg"].metadata == {}
    assert codes(layout) == {"images/3.jpg": "not_listed", "images/4.jpg": "not_listed"}
    told = read({**IMAGES, "labels.csv": "path,label,source id,empty\nimages/1.jpg,ants,x9,\n"})
    assert told.placements["images/1.jpg"].metadata == {"source id": "x9"}


def test_a_file_of_labels_in_each_split_folder(read: Read) -> None:
    files = {f"{split}/{n}.jpg": b"" for split in ("train", "val") for n in (1, 2)}
    for split in ("train", "val"):
        files[f"{split}/labels.csv"] = f"path,label,split\n1.jpg,ants,{split}\n2.jpg,bees,{split}\n".encode()
    expected = {f"{split}/{n}.jpg": (("", "ants", "bees")[n], split) for split in ("train", "val") for n in (1, 2)}
    assert placed(read(files)) == expected


def test_the_file_of_labels_counts_and_not_the_folders(read: Read) -> None:
    layout = read({"ants/1.jpg": b"", "ants/2.jpg": b"", "labels.csv": "path,label\nants/1.jpg,wasps\n"})
    assert placed(layout) == {"ants/1.jpg": ("wasps", None)}
    assert codes(layout) == {"ants/2.jpg": "not_listed"}


def test_each_line_that_is_no_good_is_left_out_with_its_reason(read: Read) -> None:
    long = "x" * 20_000
    lines = [
        {"path": "images/1.jpg"},
        {"path": "images/2.jpg", "label": "ants", "split": "holdout"},
        {"path": "images/3.jpg", "label": "an\u0007ts"},
        {"path": "images/4.jpg", "label": "ants", "note": long},
        {"path": "images/9.jpg", "label": "ants"},
        {"path": "../../etc/passwd.jpg", "label": "ants"},
        {"path": "images/5.jpg", "label": "ants"},
        {"path": "images/5.jpg", "label": "bees"},
        {"path": "images/6.jpg", "label": "ants", "note": "\ud800"},
        {"path": "images/7.jpg", "label": "\ud800"},
        {"path": "images/8.jpg", "label": "bees"},
        {"path": "images/8.jpg", "label": "bees"},
    ]
    images = {f"images/{n}.jpg": b"" for n in range(1, 9)}
    layout = read({**images, "labels.jsonl": "\n".join(map(json.dumps, lines))})
    assert codes(layout) == {
        "images/1.jpg": "no_label",
        "images/2.jpg": "bad_split",
        "images/3.jpg": "bad_label",
        "images/4.jpg": "metadata_too_large",
        "images/9.jpg": "missing_file",
        "../../etc/passwd.jpg": "missing_file",
        "images/5.jpg": "conflicting_labels",
        "images/6.jpg": "bad_metadata",
        "images/7.jpg": "bad_label",
    }
    assert placed(layout) == {"images/8.jpg": ("bees", None)}
    reasons = {skipped.name: skipped.reason for skipped in layout.skipped}
    assert "labels.jsonl line 2" in reasons["images/2.jpg"]
    assert "'holdout'" in reasons["images/2.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("labels.csv", "", "columns named path"),
        ("labels.csv", "a,b\n1,2\n", "columns named path"),
        ("labels.csv", "path,file,label\n", "2 columns named path"),
        ("labels.csv", "path,label\n1.jpg\n", "line 2 has 1 columns"),
        ("labels.csv", 'path,label\n"1.jpg,ants\n', "line"),
        ("labels.csv", b"path,label\n\xff\xfe", "byte 11 is not UTF-8"),
        ("labels.csv", "path,label\na\0b,c\n", "NUL"),
        ("labels.csv", f"path,label\n{'x' * 200_000},a\n", "field larger"),
        ("labels.jsonl", "{", "line 1 is no JSON"),
        ("labels.jsonl", "[1]", "no JSON object"),
        ("labels.jsonl", '{"path": "1.jpg", "label": "a", "x": NaN}', "NaN"),
        ("labels.jsonl", '{"path": "1.jpg", "label": ["a"]}', "label is"),
        ("labels.jsonl", '{"label": "a"}', "path"),
        ("labels.jsonl", "[" * 100_000, "line 1"),
        ("labels.jsonl", '{"path": "1.jpg", "label": ' + "9" * 5000 + "}", "line 1"),
    ],
)
def test_a_file_of_labels_that_cannot_be_read_refuses_the_archive(
    read: Read, name: str, text: bytes | str, says: str
) -> None:
    with pytest.raises(Invalid) as caught:
        read({"1.jpg": b"", name: text})
    assert caught.value.code == "malformed_labels"
    assert caught.value.errors[0].field == name
    assert says in caught.value.detail


def test_a_file_of_labels_is_bounded(read: Read) -> None:
    with pytest.raises(Invalid) as caught:
        read({"1.jpg": b"", "labels.csv": "path,label\n" + "1.jpg,ants\n" * 1000}, max_file_bytes=1000)
    assert caught.value.code == "labels_too_large"
    assert "GRAFT_MAX_FILE_BYTES" in caught.value.detail


def test_litter_describes_nothing(read: Read) -> None:
    layout = read({"ants/1.jpg": b"", "bees/2.jpg": b"", "__MACOSX/._labels.csv": b"\0", ".x/labels.csv": b"\0"})
    assert placed(layout) == {"ants/1.jpg": ("ants", None), "bees/2.jpg": ("bees", None)}
    assert not may_hold_labels("__MACOSX/labels.csv")


def coco(names: Mapping[str, list[int]], **more: Any) -> str:
    """COCO annotations: file name → category of each box."""
    images, annotations = [], []
    for number, (name, categories) in enumerate(names.items()):
        images.append({"id": number, "file_name": name, "width": 9, "height": 9})
        for category in categories:
            box = [1, 2.5, 3, 4]
            annotations.append({"id": len(annotations), "image_id": number, "category_id": category, "bbox": box})
    categories = [{"id": 1, "name": "ants"}, {"id": 2, "name": "bees"}]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories, **more})


def test_coco_gives_one_class_an_image_and_keeps_the_boxes(read: Read) -> None:
    files = {f"{split}2017/{n}.jpg": b"" for split in ("train", "val") for n in range(3)} | {"train2017/3.jpg": b""}
    layout = read(
        {
            **files,
            "annotations/instances_train2017.json": coco({"0.jpg": [1], "1.jpg": [2, 2], "2.jpg": [1, 2], "3.jpg": []}),
            "annotations/instances_val2017.json": coco({f"val2017/{n}.jpg": [1] for n in range(3)}),
        }
    )
    # 0.jpg, 1.jpg and 2.jpg lie in both folders; the annotations are named after the one that is meant.
    assert placed(layout) == {f"val2017/{n}.jpg": ("ants", "val") for n in range(3)} | {
        "train2017/0.jpg": ("ants", "train"),
        "train2017/1.jpg": ("bees", "train"),
    }
    assert codes(layout) == {"train2017/2.jpg": "no_label", "train2017/3.jpg": "no_label"}

    layout = read(
        {
            **{f"train/{n}.jpg": b"" for n in range(4)},
            "train/_annotations.coco.json": coco({"0.jpg": [1], "1.jpg": [2, 2], "2.jpg": [1, 2], "3.jpg": []}),
        }
    )
    assert placed(layout) == {"train/0.jpg": ("ants", "train"), "train/1.jpg": ("bees", "train")}
    assert codes(layout) == {"train/2.jpg": "no_label", "train/3.jpg": "no_label"}
    assert layout.placements["train/1.jpg"].metadata == {"boxes": [{"label": "bees", "box": [1.0, 2.5, 3.0, 4.0]}] * 2}
    assert "2 classes (ants, bees)" in {one.name: one.reason for one in layout.skipped}["train/2.jpg"]


@pytest.mark.parametrize(
    "text",
    [
        coco({"1.jpg": [3]}),
        coco({"1.jpg": [1]}, categories=3),
        coco({"1.jpg": [1]}, images=[{"id": 0}]),
        coco({"1.jpg": [1]})[:-5],
        coco({"1.jpg": [1]}).replace("2.5", "NaN"),
        coco({"1.jpg": [1]}).replace("2.5", '"wide"'),
        coco({"1.jpg": [1]}, annotations=[[]]),
    ],
)
def test_damaged_coco_refuses_the_archive(read: Read, text: str) -> None:
    with pytest.raises(Invalid) as caught:
        read({"1.jpg": b"", "annotations.json": text})
    assert caught.value.code == "malformed_labels"


def test_other_json_beside_class_folders_changes_nothing(read: Read) -> None:
    layout = read({"ants/1.jpg": b"", "bees/2.jpg": b"", "info.json": '{"images": 2}', "bees/2.xml": "<a/>"})
    assert placed(layout) == {"ants/1.jpg": ("ants", None), "bees/2.jpg": ("bees", None)}


def voc(filename: str, *labels: str) -> str:
    objects = "".join(
        f"<object><name>{label}</name><part><name>wing</name></part><bndbox><xmin>1</xmin><ymin>2</ymin>"
        "<xmax>11</xmax><ymax>22</ymax></bndbox></object>"
        for label in labels
    )
    return f"<annotation><folder>VOC2012</folder><filename>{filename}</filename>{objects}</annotation>"


def test_voc_gives_one_class_an_image_its_split_and_its_boxes(read: Read) -> None:
    top = "VOCdevkit/VOC2012"
    layout = read(
        {
            **{f"{top}/JPEGImages/{n}.jpg": b"" for n in range(4)},
            f"{top}/Annotations/0.xml": voc("0.jpg", "ant"),
            f"{top}/Annotations/1.xml": voc("1.jpg", "bee", "bee"),
            f"{top}/Annotations/2.xml": voc("C:\\photos\\2.jpg", "ant", "bee"),
            f"{top}/Annotations/3.xml": voc("", "ant"),
            f"{top}/ImageSets/Main/train.txt": "0\n3\n",
            f"{top}/ImageSets/Main/val.txt": "1\n",
            f"{top}/ImageSets/Main/ant_train.txt": "0  1\n1 -1\n",
        }
    )
    assert placed(layout) == {
        f"{top}/JPEGImages/0.jpg": ("ant", "train"),
        f"{top}/JPEGImages/1.jpg": ("bee", "val"),
        f"{top}/JPEGImages/3.jpg": ("ant", "train"),
    }
    assert codes(layout) == {f"{top}/JPEGImages/2.jpg": "no_label"}
    boxes = layout.placements[f"{top}/JPEGImages/1.jpg"].metadata["boxes"]
    assert boxes == [{"label": "bee", "box": [1.0, 2.0, 10.0, 20.0]}] * 2


def test_voc_beside_its_images(read: Read) -> None:
    files = {f"{split}/{n}.jpg": b"" for split in ("train", "valid") for n in range(2)}
    layout = read(files | {name.replace("jpg", "xml"): voc(name[-5:], "ant").encode() for name in files})
    assert placed(layout) == {
        f"{folder}/{n}.jpg": ("ant", split) for folder, split in (("train", "train"), ("valid", "val")) for n in (0, 1)
    }


BILLION_LAUGHS = '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'


@pytest.mark.parametrize(
    "text",
    [
        BILLION_LAUGHS,
        BILLION_LAUGHS.encode("utf-16"),
        '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>',
        "<annotation>",
        "",
        "<a>" * 100_000,
        voc("1.jpg", "ant").replace("<xmin>1<", "<xmin>one<"),
        "<annotation><object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></object></annotation>",
    ],
)
def test_hostile_and_damaged_xml_refuses_the_archive(read: Read, text: bytes | str) -> None:
    with pytest.raises(Invalid) as caught:
        read({"JPEGImages/1.jpg": b"", "Annotations/1.xml": text})
    assert caught.value.code == "malformed_labels"
    assert caught.value.errors[0].field == "Annotations/1.xml"
