"""Ranking scores against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from app.vision.scores.ranking import average_precision, roc_auc, threshold_sweep


def ranks(scores: list[float], positive: list[int]) -> tuple[float | None, float | None]:
    values, truth = np.array(scores, np.float32), np.array(positive, bool)
    return roc_auc(values, truth), average_precision(values, truth)


def test_scores_worked_out_by_hand() -> None:
    # Positives at 0.8 and 0.35, negatives at 0.4 and 0.1: three of four pairs are the right way round.
    assert ranks([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]) == (pytest.approx(3 / 4), pytest.approx((1 + 2 / 3) / 2))
    assert ranks([0.9, 0.8, 0.2], [1, 1, 0]) == (1.0, 1.0)
    assert ranks([0.1, 0.8, 0.9], [1, 0, 0]) == (0.0, pytest.approx(1 / 3))


def test_equal_scores_count_half_whatever_their_order() -> None:
    for truth in ([1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0]):
        assert ranks([0.5] * 4, truth) == (0.5, 0.5)
    # The pair at 0.7 is tied: half a win of two pairs, and both are taken at once.
    assert ranks([0.7, 0.7, 0.1], [1, 0, 0]) == (pytest.approx(1.5 / 2), pytest.approx(1 / 2))


def test_what_is_not_defined_is_none() -> None:
    assert ranks([0.1, 0.2], [0, 0]) == (None, None)
    assert ranks([0.1, 0.2], [1, 1]) == (None, 1.0)


def test_thresholds_worked_out_by_hand() -> None:
    probabilities = np.array([[0.85, 0.15], [0.55, 0.45], [0.35, 0.65], [0.75, 0.25]], np.float32)
    sweep = threshold_sweep(probabilities, np.array([0, 0, 1, 1]))
    at = {name: dict(zip(sweep["thresholds"], sweep[name][0], strict=True)) for name in ("precision", "recall", "f1")}
    # Class 0: at 0.5 images 0, 1 and 3 are chosen, at 0.6 images 0 and 3, at 0.8 image 0, at 0.9 none.
    assert [at["precision"][t] for t in (0.1, 0.5, 0.6, 0.8, 0.9)] == [0.5, 0.6667, 0.5, 1.0, 0.0]
    assert [at["recall"][t] for t in (0.1, 0.5, 0.6, 0.8, 0.9)] == [1.0, 1.0, 0.5, 0.5, 0.0]
    assert [at["f1"][t] for t in (0.1, 0.5, 0.6, 0.8, 0.9)] == [0.6667, 0.8, 0.5, 0.6667, 0.0]
    assert len(sweep["f1"]) == 2
