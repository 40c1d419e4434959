"""What a model says of every image it was measured on: one row an image, as JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from app.vision.training.run import FitResult, Sample

TOP = 5  # classes whose probabilities a row names
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = ("image", "split", "true", "predicted", "probability", "true_probability", "ood_score")


def image_rows(
    result: FitResult, samples: Sequence[Sample], classes: Sequence[str], split: str
) -> Iterator[dict[str, Any]]:
    """A row for each image of the split, in the order of the samples.

    `image` is the file's name; `probability` is that of `predicted`, `true_probability` that of `true`, and `top`
    holds the most probable classes, five at most, each with its probability. All are those that the model answers.
    `ood_score` is null where the model has none; past 1 the image is unknown to it.
    """
    of_split = [sample for sample in samples if sample.split == split]
    scores = result.scores.get(split)
    for number, (sample, row) in enumerate(zip(of_split, result.probabilities[split], strict=True)):
        best = np.argsort(-row, kind="stable")[:TOP]
        yield {
            "image": sample.path.name,
            "split": split,
            "true": classes[sample.label],
            "predicted": classes[best[0]],
            "probability": float(row[best[0]]),
            "true_probability": float(row[sample.label]),
            "ood_score": None if scores is None else float(scores[number]),
            "top": [{"class": classes[label], "probability": float(row[label])} for label in best],
        }


def json_lines(rows: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """A line a row."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False).encode() + b"\n"


def csv_lines(rows: Iterable[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> Iterator[bytes]:
    """A heading, then a line a row (RFC 4180), with these of its values; None is nothing between two commas.

    Of the `top` classes that leaves only the first, which is `predicted`. A text that a spreadsheet would take for a
    formula, since it begins with one of = + - @ tab CR, has an apostrophe before it, as OWASP advises against "CSV
    injection".
    """
    yield _csv_line(columns)
    for row in rows:
        yield _csv_line([row.get(name) for name in columns])  # rows of older models have no score


def _csv_line(values: Sequence[Any]) -> bytes:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(
        [f"'{one}" if isinstance(one, str) and one.startswith(_FORMULA) else one for one in values]
    )
    return line.getvalue().encode()
