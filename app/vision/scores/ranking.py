"""Measures how well a class's probability tells its images from all others, at every threshold and at a few."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def roc_auc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve of scores [N]: how often a positive outranks a negative, ties counting half.

    None where there are no positives or no negatives.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return None
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # from 1; equal scores share the mean of theirs
    above = ranks[place][positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float | None:
    """Return the precision at each distinct score of [N], weighed by the recall it adds.

    None where there are no positives.
    """
    positives = int(positive.sum())
    if not positives:
        return None
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # the last of each run of equal scores
    hits = np.cumsum(positive[order])[ends]
    return float((hits / (ends + 1) * np.diff(hits, prepend=0)).sum() / positives)


def threshold_sweep(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return what each class would score if it were answered from a probability of `thresholds[i]` upwards.

    `precision`, `recall` and `f1` have a row for each class and a column for each threshold; 0 where undefined.
    """
    truth = labels[:, None] == np.arange(probabilities.shape[1])
    support = truth.sum(axis=0)
    columns: dict[str, list[NDArray[np.float64]]] = {"precision": [], "recall": [], "f1": []}
    for threshold in THRESHOLDS:
        chosen = probabilities >= threshold
        hits = (chosen & truth).sum(axis=0)
        # F1 is the hits' share of what was chosen and what should have been, on average.
        for name, whole in (("precision", chosen.sum(axis=0)), ("recall", support)):
            columns[name].append(hits / np.maximum(whole, 1))
        columns["f1"].append(2 * hits / np.maximum(chosen.sum(axis=0) + support, 1))
    rows = {name: np.stack(values, axis=1).round(4).tolist() for name, values in columns.items()}
    return {"thresholds": list(THRESHOLDS), **rows}
