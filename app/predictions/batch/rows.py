"""Read the images of a predict job, and build the rows of its result."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.datasets.manifest import Manifest
from app.predictions.schemas import Prediction
from app.vision.artefacts.tables import csv_lines

_COLUMNS = (
    "image",
    "id",
    "split",
    "label",
    "status",
    "decision",
    "ood_score",
    "predicted",
    "probability",
    "error",
    "detail",
)


@dataclass(frozen=True, slots=True)
class AskedImage:
    """An image to classify. `sha256` is None where there is none; `id` is what the caller called it, if anything.

    `split` and `label` are those of the version that it is taken from.
    """

    sha256: str | None
    id: str | None = None
    split: str | None = None
    label: str | None = None


def listed_images(data: bytes) -> list[AskedImage]:
    """Yield the images of an `app.predictions.batch.service.image_list`, in its order."""
    return [AskedImage(one["sha256"], one["id"]) for one in map(json.loads, data.splitlines())]


def version_images(manifest: Manifest, split: str | None, label: str | None) -> list[AskedImage]:
    """Yield the images of a version, in its order; of one split and one label only, unless these are None."""
    return [
        AskedImage(item.sha256, split=item.split, label=item.label)
        for item in manifest.items
        if split in (None, item.split) and label in (None, item.label)
    ]


def result_row(asked: AskedImage, answer: Prediction) -> dict[str, Any]:
    """Return one image's row: the image's description, and the answer that a predict call would give."""
    known = {"image": asked.sha256, "id": asked.id, "split": asked.split, "label": asked.label}
    return known | answer.model_dump(mode="json", exclude={"file"}, exclude_none=True)


def result_csv(rows: Iterable[dict[str, Any]], classes: Sequence[str] | None) -> Iterator[bytes]:
    """Yield the rows as CSV: of the classes that are named the first, as `predicted`.

    With `classes`, those of the model, there is a column for the probability of each.
    """
    shares = {label: f"probability:{label}" for label in classes or ()}

    def flat(row: dict[str, Any]) -> dict[str, Any]:
        best = row["predictions"][0] if row["predictions"] else {}
        error = row.get("error", {})
        found = row.get("probabilities", {})
        told = {"predicted": best.get("label"), "probability": best.get("probability")}
        told |= {"error": error.get("code"), "detail": error.get("detail")}
        return row | told | {column: found.get(label) for label, column in shares.items()}

    return csv_lines(map(flat, rows), (*_COLUMNS, *shares.values()))
