"""Calibration: errors worked out by hand, and temperatures that are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.vision.scores.calibration import expected_calibration_error, fit_temperature
from app.vision.tasks.classify.answers import to_probabilities


def drawn(samples: int, sharpness: float) -> tuple[torch.Tensor, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Labels drawn from softmax(scores), and logits that are `sharpness` times too sure of themselves."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(samples, 4, generator=generator) * 1.5
    labels = torch.multinomial(scores.softmax(dim=1), 1, generator=generator).squeeze(1)
    return scores * sharpness, labels.numpy()


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_it_finds_how_much_too_sure_a_model_is(sharpness: float) -> None:
    logits, labels = drawn(4000, sharpness)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(sharpness, rel=0.06)
    before, after = to_probabilities(logits), to_probabilities(logits, temperature)
    assert expected_calibration_error(after, labels) < 0.02
    if sharpness != 1.0:
        assert expected_calibration_error(before, labels) > 0.08
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()


def test_a_dozen_right_images_prove_no_certainty() -> None:
    labels = np.arange(12) % 3
    logits = 4 * torch.eye(3)[torch.from_numpy(labels)]
    assert 0.7 < fit_temperature(logits, labels) < 1.0
    assert fit_temperature(torch.zeros(5, 3), labels[:5]) == pytest.approx(1.0)
    wrong = fit_temperature(1e4 * torch.eye(3)[torch.from_numpy((labels + 1) % 3)], labels)
    assert 1.0 < wrong < 1e6


def test_calibration_error_worked_out_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.7, 0.3], [0.3, 0.7]], np.float32)
    labels = np.array([0, 1, 0, 1])
    # Two images at 0.9 of which one is right, two at 0.7 which both are.
    assert expected_calibration_error(probabilities, labels) == pytest.approx((2 * 0.4 + 2 * 0.3) / 4)
    assert expected_calibration_error(np.eye(2, dtype=np.float32), np.array([0, 1])) == 0.0
