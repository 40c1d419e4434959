"""Selective prediction accepts answers by a threshold for each class, which validation sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from app.vision.scores.intervals import CONFIDENCE, interval, least_trials, shows

Decision = Literal["accept", "abstain", "unknown"]
CURVE_POINTS = 20


@dataclass(frozen=True)
class LabelledAnswers:
    """Holds what a model said of the labelled images of a split, in arrays [N].

    `predicted` is a class's index and `confidence` its probability, `right` whether it is the label, and `known` is
    False for images that the model calls unknown, whatever their confidence.
    """

    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @classmethod
    def from_probabilities(
        cls,
        probabilities: NDArray[np.float32],
        labels: NDArray[np.int64],
        ood_scores: NDArray[np.float32] | None = None,
    ) -> LabelledAnswers:
        """Return those of probabilities [N, C], labels [N] and, of a model that has them, OOD scores [N]."""
        predicted = probabilities.argmax(axis=1)
        known = np.ones(len(labels), dtype=np.bool_) if ood_scores is None else ood_scores <= 1
        return cls(predicted, probabilities.max(axis=1).astype(np.float64), predicted == labels, known)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> LabelledAnswers:
        """Return those of rows of `tables.image_rows`; raises KeyError for a class that is not the model's."""
        index = {label: number for number, label in enumerate(classes)}
        found = [
            (index[row["predicted"]], row["probability"], row["predicted"] == row["true"], row.get("ood_score") or 0.0)
            for row in rows
        ]
        columns = list(zip(*found, strict=True)) or [(), (), (), ()]
        return cls(
            np.array(columns[0], dtype=np.int64),
            np.array(columns[1], dtype=np.float64),
            np.array(columns[2], dtype=np.bool_),
            np.array(columns[3], dtype=np.float64) <= 1,
        )


def select(
    predicted: int, probability: float, ood_score: float | None, thresholds: Sequence[float | None] | None
) -> Decision | None:
    """Return what to do with an answer; None for a model without thresholds, unless the image is unknown to it.

    Past 1 of the OOD score an image is unknown. A class whose threshold is None is never
    accepted.
    """
    if ood_score is not None and ood_score > 1:
        return "unknown"
    if thresholds is None:
        return None
    least = thresholds[predicted]
    return "accept" if least is not None and probability >= least else "abstain"


def choose_thresholds(answers: LabelledAnswers, classes: int, target: float) -> list[float | None]:
    """Return for each class the lowest threshold at which validation shows the target precision of what is accepted.

    Shown is a precision whose lower Clopper-Pearson bound (two-sided, 95 %) reaches the target, not one that was just
    met. None: no threshold shows it, and then the class is never accepted.
    """
    return [_lowest(answers, label, target) for label in range(classes)]


def _lowest(answers: LabelledAnswers, label: int, target: float) -> float | None:
    mine = answers.known & (answers.predicted == label)
    order = np.argsort(answers.confidence[mine], kind="stable")
    confidence = answers.confidence[mine][order]
    right = answers.right[mine][order][::-1].cumsum()[::-1]  # from each image on upwards
    least = least_trials(target)
    for start in np.flatnonzero(np.diff(confidence, prepend=-1.0) > 0):  # images of one confidence stay together
        trials, successes = len(confidence) - int(start), int(right[start])
        if trials < least:
            return None
        if successes >= target * trials and shows(successes, trials, target):
            return float(confidence[start])
    return None


def selective_metrics(
    answers: LabelledAnswers, thresholds: Sequence[float | None], classes: Sequence[str]
) -> dict[str, Any]:
    """Return how the thresholds do on a split, JSON-able.

    `coverage` is the share that is accepted: of all images, and for each class of those that it is predicted for.
    `precision` is the share of the accepted that are right, null where none is, with its interval of 95 %.
    """
    lowest = np.array([np.inf if one is None else one for one in thresholds])
    accepted = answers.known & (answers.confidence >= lowest[answers.predicted])
    rows = []
    for label, name in enumerate(classes):
        mine = answers.predicted == label
        rows.append({"class": name, **_counted(accepted[mine], answers.right[mine])})
    return {**_counted(accepted, answers.right), "unknown": int((~answers.known).sum()), "per_class": rows}


def _counted(accepted: NDArray[np.bool_], right: NDArray[np.bool_]) -> dict[str, Any]:
    images, count, hits = len(accepted), int(accepted.sum()), int((accepted & right).sum())
    low, high = interval(hits, count) if count else (None, None)
    return {
        "images": images,
        "accepted": count,
        "coverage": count / images if images else 0.0,
        "precision": hits / count if count else None,
        "precision_low": low,
        "precision_high": high,
    }


def selective_prediction(
    splits: Mapping[str, LabelledAnswers], classes: Sequence[str], target: float
) -> dict[str, Any]:
    """Return a target and what comes of it, JSON-able.

    That is the thresholds by class, chosen on "val", and how they do on each split.
    """
    thresholds = choose_thresholds(splits["val"], len(classes), target)
    return {
        "target_precision": target,
        "confidence": CONFIDENCE,
        "thresholds": dict(zip(classes, thresholds, strict=True)),
        "splits": {split: selective_metrics(answers, thresholds, classes) for split, answers in splits.items()},
    }


def notes_on_thresholds(decisions: Mapping[str, Any]) -> list[str]:
    """Return a note on the classes that cannot show the target, and what would help; none if all of them can."""
    target, thresholds = decisions["target_precision"], decisions["thresholds"]
    without = [label for label, threshold in thresholds.items() if threshold is None]
    if not without:
        return []
    shown = ", ".join(without[:5]) + (", …" if len(without) > 5 else "")
    note = (
        f"target_precision {target:g}: {len(without)} of {len(thresholds)} classes cannot show it on the validation"
        f" images and are never accepted ({shown}). It takes {least_trials(target)} images that are classified as"
        " such and all right, or more of them with a few mistakes: validate on more images, or lower the target."
    )
    return [note]


def coverage_curve(answers: LabelledAnswers) -> dict[str, list[float]]:
    """Return coverage against precision, were answers accepted by their probability alone, the surest first.

    Lists of equal length: `coverage` is a share of all images, `threshold` the probability that gives it, `precision`
    the share of what is accepted that is right, between `low` and `high` (95 %). Unknown images are not covered.
    """
    order = np.argsort(-answers.confidence[answers.known], kind="stable")
    confidence, right = answers.confidence[answers.known][order], answers.right[answers.known][order].cumsum()
    counts = np.unique(np.ceil(np.linspace(0, len(order), CURVE_POINTS + 1)).astype(np.int64))[1:]
    bounds = [interval(int(right[count - 1]), int(count)) for count in counts]
    return {
        "coverage": [float(count / len(answers.known)) for count in counts],
        "threshold": [float(confidence[count - 1]) for count in counts],
        "precision": [float(right[count - 1] / count) for count in counts],
        "low": [low for low, _ in bounds],
        "high": [high for _, high in bounds],
    }
