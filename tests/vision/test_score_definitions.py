"""Every score of a report against its definition, counted image by image and pair by pair on random answers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from app.vision.scores.calibration import BINS, fit_temperature
from app.vision.tasks.classify.answers import to_probabilities
from app.vision.tasks.classify.evaluation import assess

CLASSES = [f"class {number}" for number in range(7)]
IMAGES = 240
EMPTY = 6  # a class that no image has


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    # Rounded, so that many probabilities are equal.
    return torch.from_numpy(np.random.default_rng(0).normal(0, 2, (IMAGES, 7)).round().astype(np.float32))


@pytest.fixture(scope="module")
def labels(logits: torch.Tensor) -> NDArray[np.int64]:
    """Right in half of the cases."""
    draw = np.random.default_rng(1)
    guessed = logits[:, :EMPTY].argmax(1).numpy()
    return np.where(draw.random(IMAGES) < 0.5, guessed, draw.integers(0, EMPTY, IMAGES))


@pytest.fixture(scope="module")
def temperature(logits: torch.Tensor, labels: NDArray[np.int64]) -> float:
    return fit_temperature(logits, labels)


@pytest.fixture(scope="module")
def answers(logits: torch.Tensor, temperature: float) -> list[list[float]]:
    return to_probabilities(logits, temperature).astype(float).tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def scores(logits: torch.Tensor, labels: NDArray[np.int64], temperature: float) -> dict[str, Any]:
    calibrated, plain = (to_probabilities(logits, one) for one in (temperature, 1.0))
    return assess(calibrated, plain, labels, CLASSES, [str(number) for number in range(IMAGES)], temperature)


def ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def predicted(row: list[float]) -> int:
    return row.index(max(row))


def test_accuracy_top5_and_log_loss(
    scores: dict[str, Any], answers: list[list[float]], labels: NDArray[np.int64]
) -> None:
    right = sum(predicted(row) == label for row, label in zip(answers, labels, strict=True))
    loss = -sum(math.log(row[label]) for row, label in zip(answers, labels, strict=True))
    assert scores["accuracy"] == pytest.approx(right / IMAGES)
    assert scores["log_loss"] == pytest.approx(loss / IMAGES, rel=1e-5)
    # Where the fifth and the sixth are equal, either may count.
    surely = sum(sum(other >= row[label] for other in row) <= 5 for row, label in zip(answers, labels, strict=True))
    perhaps = sum(sum(other > row[label] for other in row) < 5 for row, label in zip(answers, labels, strict=True))
    assert surely / IMAGES <= scores["top5"] <= perhaps / IMAGES


def test_confusion_precision_recall_f1_and_means(
    scores: dict[str, Any], answers: list[list[float]], labels: NDArray[np.int64]
) -> None:
    pairs = [(int(label), predicted(row)) for row, label in zip(answers, labels, strict=True)]
    assert scores["confusion"] == [[pairs.count((true, said)) for said in range(7)] for true in range(7)]
    rows = []
    for number, row in enumerate(scores["per_class"]):
        hits = pairs.count((number, number))
        support = sum(true == number for true, _ in pairs)
        precision, recall = ratio(hits, sum(said == number for _, said in pairs)), ratio(hits, support)
        f1 = ratio(2 * precision * recall, precision + recall)
        assert (row["class"], row["support"]) == (CLASSES[number], support)
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx([precision, recall, f1])
        rows.append((support, {"precision": precision, "recall": recall, "f1": f1}))
    assert rows[EMPTY][0] == 0
    for name in ("precision", "recall", "f1"):
        there = [columns[name] for support, columns in rows if support]
        assert scores[f"macro_{name}"] == pytest.approx(sum(there) / len(there))
        weighted = sum(support * columns[name] for support, columns in rows) / IMAGES
        assert scores[f"weighted_{name}"] == pytest.approx(weighted)


def test_roc_auc_is_the_share_of_pairs_in_order(
    scores: dict[str, Any], answers: list[list[float]], labels: NDArray[np.int64]
) -> None:
    for number, row in enumerate(scores["per_class"]):
        ours = [one[number] for one, label in zip(answers, labels, strict=True) if label == number]
        others = [one[number] for one, label in zip(answers, labels, strict=True) if label != number]
        if not ours:
            assert row["roc_auc"] is None
            continue
        won = sum((mine > other) + (mine == other) / 2 for mine in ours for other in others)
        assert row["roc_auc"] == pytest.approx(won / (len(ours) * len(others)), abs=1e-6)


def test_average_precision_is_the_area_under_the_steps(
    scores: dict[str, Any], answers: list[list[float]], labels: NDArray[np.int64]
) -> None:
    for number, row in enumerate(scores["per_class"]):
        truth = [(one[number], label == number) for one, label in zip(answers, labels, strict=True)]
        support = sum(mine for _, mine in truth)
        if not support:
            assert row["average_precision"] is None
            continue
        area, recall = 0.0, 0.0
        for threshold in sorted({score for score, _ in truth}, reverse=True):
            chosen = [mine for score, mine in truth if score >= threshold]
            area += (sum(chosen) / support - recall) * sum(chosen) / len(chosen)
            recall = sum(chosen) / support
        assert row["average_precision"] == pytest.approx(area, abs=1e-6)


def test_thresholds(scores: dict[str, Any], answers: list[list[float]], labels: NDArray[np.int64]) -> None:
    sweep = scores["threshold_sweep"]
    for number in range(7):
        for place, threshold in enumerate(sweep["thresholds"]):
            chosen = [label == number for one, label in zip(answers, labels, strict=True) if one[number] >= threshold]
            support = int((labels == number).sum())
            assert sweep["precision"][number][place] == pytest.approx(ratio(sum(chosen), len(chosen)), abs=1e-4)
            assert sweep["recall"][number][place] == pytest.approx(ratio(sum(chosen), support), abs=1e-4)


def test_calibration_error_before_and_after(
    scores: dict[str, Any], logits: torch.Tensor, labels: NDArray[np.int64], temperature: float
) -> None:
    def gap(rows: list[list[float]]) -> float:
        total = 0.0
        for number in range(BINS):
            inside = [
                (max(row), predicted(row) == label)
                for row, label in zip(rows, labels, strict=True)
                if number / BINS < max(row) <= (number + 1) / BINS
            ]
            total += abs(sum(right - sure for sure, right in inside))
        return total / IMAGES

    before, after = (gap(to_probabilities(logits, one).astype(float).tolist()) for one in (1.0, temperature))
    assert scores["calibration"]["ece_before"] == pytest.approx(before, abs=1e-5)
    assert scores["calibration"]["ece"] == pytest.approx(after, abs=1e-5)


def test_the_temperature_is_the_likeliest(logits: torch.Tensor, labels: NDArray[np.int64], temperature: float) -> None:
    def loss(one: float) -> float:
        rows = to_probabilities(logits, one).astype(float)
        return float(-np.log(rows[np.arange(IMAGES), labels]).mean())

    grid = [0.25 * 1.05**step for step in range(80)]
    assert temperature == pytest.approx(min(grid, key=loss), rel=0.06)  # the prior pulls a little, the grid is coarse
