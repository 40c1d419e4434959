"""Everything that is said of a finished model on one split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.vision.scores.calibration import expected_calibration_error
from app.vision.scores.evaluation import evaluate, log_loss
from app.vision.scores.ranking import average_precision, roc_auc, threshold_sweep
from app.vision.tasks.classify.selective_prediction import Verdicts, coverage_curve

MISTAKES = 50


def assess(
    probabilities: NDArray[np.float32],
    uncalibrated: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    names: Sequence[str],
    temperature: float,
    novelty: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """The scores of `evaluate` and more, JSON-able; `probabilities` [N, C] are what the model will answer.

    Each class gets its one-vs-rest `roc_auc` and `average_precision` (null where they are not defined), with macro
    means over the classes that have one; `threshold_sweep` is that of `scores.ranking`; `calibration` compares
    with the probabilities before they were divided by `temperature`; `coverage` is that of `selective_prediction`;
    `unknown` is the share of the images that the out-of-distribution scores `novelty` [N] call so, null without them;
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
    verdicts = Verdicts.of(probabilities, labels, novelty)
    scores["coverage"] = coverage_curve(verdicts)
    scores["unknown"] = None if novelty is None else float((~verdicts.known).mean())
    scores["mistakes"] = worst_mistakes(probabilities, labels, classes, names)
    return scores


def worst_mistakes(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], classes: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The images that were classified wrongly, the least likely truth first, 50 at most.

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
