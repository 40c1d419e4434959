"""Measures how a classifier does on a split: after an epoch, and in all detail when it is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.scores.calibration import expected_calibration_error
from app.vision.scores.evaluation import evaluate, log_loss
from app.vision.scores.ranking import average_precision, roc_auc, threshold_sweep
from app.vision.tasks.classify.selective_prediction import LabelledAnswers, coverage_curve

MISTAKES = 50


@dataclass(frozen=True)
class ClassValidation:
    """Holds what validation found after an epoch; the mean loss is in nats."""

    loss: float
    accuracy: float
    macro_f1: float

    @property
    def record(self) -> dict[str, float]:
        """Return what stands in the epoch's record."""
        return {"val_loss": self.loss, "val_accuracy": self.accuracy, "val_macro_f1": self.macro_f1}

    def better_than(self, record: Mapping[str, Any]) -> bool:
        """Return whether the accuracy is higher than in another epoch's record, or as high and the loss lower."""
        return (self.accuracy, -self.loss) > (record["val_accuracy"], -record["val_loss"])


def validated(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> ClassValidation:
    """Return what is said after an epoch, from probabilities [N, C] and labels [N]."""
    scores = evaluate(probabilities, labels, [str(label) for label in range(probabilities.shape[1])])
    return ClassValidation(scores["log_loss"], scores["accuracy"], scores["macro_f1"])


def assess(
    probabilities: NDArray[np.float32],
    uncalibrated: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    names: Sequence[str],
    temperature: float,
    ood_scores: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """Return the scores of `evaluate` and more, JSON-able; `probabilities` [N, C] are what the model will answer.

    Each class gets its one-vs-rest `roc_auc` and `average_precision` (null where they are not defined), with macro
    means over the classes that have one; `threshold_sweep` is that of `scores.ranking`; `calibration` compares
    with the probabilities before they were divided by `temperature`; `coverage` is that of `selective_prediction`;
    `unknown` is the share of the images that the OOD scores [N] call so, null without them;
    `mistakes` are the worst, see `worst_mistakes`.
    """
    scores = evaluate(probabilities, labels, classes)
    for name, score in (("roc_auc", roc_auc), ("average_precision", average_precision)):
        values = [score(probabilities[:, label], labels == label) for label in range(len(classes))]
        for row, value in zip(scores["per_class"], values, strict=True):
            row[name] = value
        defined = [value for value in values if value is not None]
        scores[f"macro_{name}"] = float(np.mean(defined)) if defined else None
    scores["calibration"] = {
        "temperature": temperature,
        "ece": expected_calibration_error(probabilities, labels),
        "ece_before": expected_calibration_error(uncalibrated, labels),
        "log_loss_before": log_loss(uncalibrated, labels),
    }
    scores["threshold_sweep"] = threshold_sweep(probabilities, labels)
    answers = LabelledAnswers.from_probabilities(probabilities, labels, ood_scores)
    scores["coverage"] = coverage_curve(answers)
    scores["unknown"] = None if ood_scores is None else float((~answers.known).mean())
    scores["mistakes"] = worst_mistakes(probabilities, labels, classes, names)
    return scores


def worst_mistakes(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the images that were classified wrongly, the least likely truth first, 50 at most.

    `image` is the name of the image's file; both probabilities are the model's.
    """
    predicted = probabilities.argmax(axis=1)
    truth = probabilities[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(predicted != labels)
    return [
        {
            "image": names[row],
            "true": classes[labels[row]],
            "predicted": classes[predicted[row]],
            "probability": float(probabilities[row, predicted[row]]),
            "true_probability": float(truth[row]),
        }
        for row in wrong[np.argsort(truth[wrong], kind="stable")][:MISTAKES]
    ]
