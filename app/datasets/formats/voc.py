"""This module reads PASCAL VOC annotations, an XML file for each image, for the one class of each; boxes become
metadata."""

from typing import Any
from xml.parsers import expat  # nosec: declarations, where all attacks on XML live, are refused

from app.datasets.formats.coco import labelled
from app.datasets.formats.label_rows import LabelRow, malformed, split_of_path
from app.vision.data.folder_names import Split

FOLDER = "annotations"
_LISTS = "imagesets/main/"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_MAX_DEPTH = 16


def is_split_list(name: str) -> bool:
    """Return whether it is `ImageSets/Main/train.txt` or its like; lists of one class, `cat_train.txt`, say nothing
    more."""
    folder, _, file = name.lower().rpartition("/")
    return (folder + "/").endswith(_LISTS) and file in ("train.txt", "val.txt", "test.txt")


def read_split_list(name: str, data: bytes) -> dict[str, Split]:
    """Return the split of each image named in a list, by the image's name without folder and extension."""
    split = split_of_path([name.rpartition("/")[2]])
    words = (line.split() for line in data.decode("utf-8", "replace").splitlines())
    return {word[0]: split for word in words if word} if split else {}


def read_voc(name: str, data: bytes, splits: dict[str, Split]) -> LabelRow:
    """Return the image of the file at `name` in the archive, with boxes as `read_coco` gives them.

    Raises `Invalid` (`malformed_labels`).
    """
    try:
        texts = _texts(data)
        stem = name.rpartition("/")[2].rpartition(".")[0]
        path = next((text for at, text in texts if at == ("annotation", "filename")), "") or f"{stem}.jpg"
        labels, boxes = [], []
        corners: dict[str, float] = {}
        for at, text in texts:
            if at == ("annotation", "object", "name"):
                labels.append(text)
                corners = {}
            elif at[:-1] == ("annotation", "object", "bndbox") and at[-1] in _CORNERS:
                corners[at[-1]] = float(text)
                if len(corners) == len(_CORNERS):
                    boxes.append(_box(labels[-1], corners))
    except (expat.ExpatError, ValueError, IndexError, OverflowError) as error:
        raise malformed(name, f"it is no VOC annotation ({str(error)[:100]})") from None
    split = splits.get(stem) or split_of_path(name.split("/")[:-1])
    return labelled(path.replace("\\", "/").rpartition("/")[2], name, labels, boxes, split)


def _box(label: str, corners: dict[str, float]) -> dict[str, Any]:
    left, top, right, bottom = (corners.pop(name) for name in _CORNERS)
    return {"label": label, "box": [left, top, right - left, bottom - top]}


def _texts(data: bytes) -> list[tuple[tuple[str, ...], str]]:
    """Return the text of every element that holds no other, by the names of the elements around it, in order."""
    parser = expat.ParserCreate()
    path: list[str] = []
    parts: list[str] = []
    found: list[tuple[tuple[str, ...], str]] = []

    def start(tag: str, _: dict[str, str]) -> None:
        path.append(tag)
        parts.clear()
        if len(path) > _MAX_DEPTH:
            raise ValueError(f"elements lie more than {_MAX_DEPTH} deep")

    def end(_: str) -> None:
        if text := "".join(parts).strip():
            found.append((tuple(path), text))
        parts.clear()
        path.pop()

    def declaration(*_: object) -> None:
        raise ValueError("it declares a document type, which no annotation needs")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = parts.append
    parser.StartDoctypeDeclHandler = declaration
    parser.Parse(data, True)
    return found
