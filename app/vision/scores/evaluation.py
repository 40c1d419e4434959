"""Scores of predicted probabilities against true labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-7  # float32 rounds anything nearer to certainty, and a logarithm needs a floor


def evaluate(probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    """Return all scores as a JSON-able dictionary, from probabilities [N, C] and labels [N] in 0..C-1, N at least 1.

    `confusion` has a row for each true class and a column for each predicted one. Precision and recall of a class
    that was never predicted or never occurs are 0. Macro means run over the classes that occur among the labels;
    weighted means weigh them by their support. `top5` is there with more than five classes, `log_loss` is in nats.
    """
    predicted = probabilities.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    hits = np.diagonal(confusion)
    support = confusion.sum(axis=1)
    precision = _ratio(hits, confusion.sum(axis=0))
    recall = _ratio(hits, support)
    f1 = _ratio(2 * precision * recall, precision + recall)
    scores: dict[str, Any] = {
        "samples": len(labels),
        "accuracy": float(hits.sum() / len(labels)),
        "log_loss": log_loss(probabilities, labels),
    }
    if len(classes) > 5:
        best = np.argpartition(probabilities, -5, axis=1)[:, -5:]
        scores["top5"] = float((best == labels[:, None]).any(axis=1).mean())
    columns = {"precision": precision, "recall": recall, "f1": f1}
    present = support > 0
    for name, values in columns.items():
        scores[f"macro_{name}"] = float(values[present].mean())
        scores[f"weighted_{name}"] = float((values * support).sum() / support.sum())
    scores["per_class"] = [
        {"class": name, **{key: float(values[row]) for key, values in columns.items()}, "support": int(support[row])}
        for row, name in enumerate(classes)
    ]
    scores["confusion"] = confusion.tolist()
    return scores


def log_loss(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the mean negative log-likelihood in nats."""
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    # A NaN passes the floor unchanged, so that a broken model cannot look like a merely bad one.
    return float(-np.log(np.maximum(likelihood, SMALLEST)).mean())


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> NDArray[np.float64]:
    out = np.zeros(len(numerator), dtype=np.float64)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
