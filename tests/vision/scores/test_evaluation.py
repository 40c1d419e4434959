"""Scores against figures worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from app.vision.scores.evaluation import evaluate


def test_scores_worked_out_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.array([0, 0, 1, 1, 0, 0])
    probabilities = np.full((6, 3), 0.1, dtype=np.float32)
    probabilities[np.arange(6), predicted] = 0.8
    scores = evaluate(probabilities, labels, ["a", "b", "c"])
    assert scores["confusion"] == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert scores["accuracy"] == pytest.approx(3 / 6)
    assert scores["log_loss"] == pytest.approx(-(3 * math.log(0.8) + 3 * math.log(0.1)) / 6)
    a, b, c = scores["per_class"]
    assert (a["precision"], a["recall"], a["support"]) == (pytest.approx(2 / 4), pytest.approx(2 / 3), 3)
    assert (b["precision"], b["recall"], b["f1"]) == (pytest.approx(1 / 2),) * 3
    assert (c["precision"], c["recall"], c["f1"], c["support"]) == (0, 0, 0, 1)
    assert scores["macro_f1"] == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)
    assert scores["weighted_f1"] == pytest.approx((3 * 4 / 7 + 2 * 1 / 2) / 6)
    assert "top5" not in scores
    json.dumps(scores, allow_nan=False)


def test_top5_is_there_with_more_than_five_classes() -> None:
    probabilities = np.tile(np.arange(7, dtype=np.float32) / 21, (7, 1))
    scores = evaluate(probabilities, np.arange(7), [str(n) for n in range(7)])
    assert scores["top5"] == pytest.approx(5 / 7)
    assert scores["accuracy"] == pytest.approx(1 / 7)


def test_a_class_without_samples_does_not_drag_the_macro_mean_down() -> None:
    scores = evaluate(np.eye(3, dtype=np.float32)[[0, 1]], np.array([0, 1]), ["a", "b", "c"])
    assert scores["macro_f1"] == 1.0
    assert scores["per_class"][2]["support"] == 0


def test_certainty_that_is_wrong_costs_a_finite_amount_and_nan_stays_nan() -> None:
    labels = np.array([1])
    assert 10 < evaluate(np.array([[1.0, 0.0]], np.float32), labels, ["a", "b"])["log_loss"] < 20
    assert math.isnan(evaluate(np.full((1, 2), np.nan, np.float32), labels, ["a", "b"])["log_loss"])
