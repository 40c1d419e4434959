"""This module reads COCO annotations (cocodataset.org, "Data format") for the one class of each image; boxes become
metadata."""

import json
from collections.abc import Iterator
from typing import Any

from app.datasets.formats.label_rows import LabelRow, malformed, only_plain, split_of_path

_KEYS = ("images", "annotations", "categories")


def is_coco(data: bytes) -> bool:
    """Return whether the JSON looks like COCO's, without parsing it."""
    return data.lstrip()[:1] == b"{" and all(f'"{key}"'.encode() in data for key in _KEYS)


def read_coco(name: str, data: bytes) -> Iterator[LabelRow]:
    """Return the images of the file at `name` in the archive; the split is the one that the file or its folder is named
    after.

    Boxes are `[x, y, width, height]` in pixels of the file as it was uploaded, before any orientation is applied. An
    image with several classes has no label of its own and comes with `label` None. Raises `Invalid`
    (`malformed_labels`).
    """
    try:
        document = json.loads(data, parse_constant=only_plain)
        categories = {category["id"]: str(category["name"]) for category in document["categories"]}
        annotations: dict[Any, list[dict[str, Any]]] = {}
        for annotation in document["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
        split = split_of_path(reversed(name.split("/")))
        for image in document["images"]:
            found = annotations.get(image["id"], [])
            labels = [categories[one["category_id"]] for one in found]
            boxes = [
                {"label": label, "box": [float(number) for number in one["bbox"]]}
                for label, one in zip(labels, found, strict=True)
                if one.get("bbox")
            ]
            yield labelled(str(image["file_name"]), name, labels, boxes, split)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise malformed(name, f"it is no COCO annotation file ({type(error).__name__}: {str(error)[:100]})") from None


def labelled(path: str, name: str, labels: list[str], boxes: list[dict[str, Any]], split: str | None) -> LabelRow:
    """Return an image with its boxes. With none, or with boxes of several classes, there is no one label for it."""
    distinct = sorted(set(labels))
    where = f"{name}: {path}"
    if len(distinct) > 1:
        where += f", with boxes of {len(distinct)} classes ({', '.join(distinct)[:100]}),"
    return LabelRow(
        path,
        name.rpartition("/")[0],
        distinct[0] if len(distinct) == 1 else None,
        split,
        {"boxes": boxes} if boxes else {},
        where,
    )
