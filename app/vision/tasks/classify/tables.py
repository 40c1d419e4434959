"""Makes a row for every image that a classifier was measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.data.samples import Sample

TOP = 5  # classes whose probabilities a row names
# Those of a CSV file. Of the `top` classes it has only the first, which is `predicted`.
COLUMNS = ("image", "split", "true", "predicted", "probability", "true_probability", "ood_score")


def image_rows(
    samples: Sequence[Sample],
    probabilities: NDArray[np.float32],
    ood_scores: NDArray[np.float32] | None,
    classes: Sequence[str],
) -> Iterator[dict[str, Any]]:
    """Yield a row for each sample, from probabilities [N, C] and, of a model that has them, OOD scores [N].

    `image` is the file's name; `probability` is that of `predicted`, `true_probability` that of `true`, and `top`
    holds the most probable classes, five at most, each with its probability. All are those that the model answers.
    `ood_score` is null where the model has none; past 1 the image is unknown to it.
    """
    for number, (sample, row) in enumerate(zip(samples, probabilities, strict=True)):
        best = np.argsort(-row, kind="stable")[:TOP]
        yield {
            "image": sample.path.name,
            "split": sample.split,
            "true": classes[sample.label],
            "predicted": classes[best[0]],
            "probability": float(row[best[0]]),
            "true_probability": float(row[sample.label]),
            "ood_score": None if ood_scores is None else float(ood_scores[number]),
            "top": [{"class": classes[label], "probability": float(row[label])} for label in best],
        }
