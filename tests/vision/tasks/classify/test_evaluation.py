"""What a finished model is said to do, and the list of its worst mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from app.vision.tasks.classify.evaluation import MISTAKES, assess, worst_mistakes

PROBABILITIES = np.array([[0.8, 0.2, 0.0], [0.3, 0.6, 0.1], [0.9, 0.1, 0.0], [0.5, 0.4, 0.1]], np.float32)
LABELS = np.array([0, 0, 1, 1])
NAMES = ["a.png", "b.png", "c.png", "d.png"]


def test_the_worst_mistake_comes_first() -> None:
    worst = worst_mistakes(PROBABILITIES, LABELS, ["x", "y", "z"], NAMES)
    assert [(one["image"], one["true"], one["predicted"]) for one in worst] == [
        ("c.png", "y", "x"),
        ("b.png", "x", "y"),
        ("d.png", "y", "x"),
    ]
    assert worst[0]["probability"] == pytest.approx(0.9)
    assert worst[0]["true_probability"] == pytest.approx(0.1)
    many = worst_mistakes(np.tile(PROBABILITIES, (30, 1)), np.tile(LABELS, 30), ["x", "y", "z"], NAMES * 30)
    assert len(many) == MISTAKES
    assert {one["image"] for one in many[:30]} == {"c.png"}


def test_scores_are_those_of_the_calibrated_model_beside_those_before() -> None:
    before = np.where(PROBABILITIES.max(axis=1, keepdims=True) == PROBABILITIES, 1.0, 0.0).astype(np.float32)
    scores = assess(PROBABILITIES, before, LABELS, ["x", "y", "z"], NAMES, 2.5)
    assert scores["accuracy"] == 0.25
    assert scores["calibration"]["temperature"] == 2.5
    assert scores["calibration"]["ece_before"] == pytest.approx(0.75)
    assert scores["calibration"]["ece"] == pytest.approx((0.2 + 0.6 + 0.9 + 0.5) / 4)
    assert scores["calibration"]["log_loss_before"] > scores["log_loss"]
    # Class x: 0.8 and 0.3 should outrank 0.9 and 0.5; one of four pairs does. Class z never occurs.
    x, _, z = scores["per_class"]
    assert x["roc_auc"] == pytest.approx(1 / 4)
    assert z["roc_auc"] is None
    assert z["average_precision"] is None
    assert scores["macro_roc_auc"] == pytest.approx((1 / 4 + 1 / 4) / 2)
    json.dumps(scores, allow_nan=False)
