"""The losses against figures worked out by hand, and what class weights do to a gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from app.vision.settings.config import TrainConfig
from app.vision.tasks.classify.losses import class_weights, make_loss

LABELS = np.array([0, 0, 0, 1])
LOGITS = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()  # softmax gives these figures back
TARGET = torch.tensor([0, 1])


def value(**fields: Any) -> float:
    return float(make_loss(TrainConfig("resnet18", **fields), LABELS, 2, torch.device("cpu"))(LOGITS, TARGET))


def test_losses_worked_out_by_hand() -> None:
    right, wrong = -math.log(0.9), -math.log(0.4)
    assert value() == pytest.approx((right + wrong) / 2)
    # A tenth of the target is spread over both classes: 0.95 and 0.05.
    smooth = 0.95 * right + 0.05 * -math.log(0.1) + 0.95 * wrong + 0.05 * -math.log(0.6)
    assert value(label_smoothing=0.1) == pytest.approx(smooth / 2)
    assert value(focal_gamma=2.0) == pytest.approx((0.1**2 * right + 0.6**2 * wrong) / 2)
    # Three of four samples are of class 0: they count 4 / (2 · 3), the other 4 / (2 · 1).
    assert value(imbalance="weights") == pytest.approx((right * 2 / 3 + wrong * 2) / 2)


def test_weights_make_classes_equal_and_are_one_on_average() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    weights = class_weights(labels, 3).numpy()
    assert weights[labels].mean() == pytest.approx(1.0)
    shares = [weights[labels[labels == label]].sum() for label in range(3)]
    assert shares == pytest.approx([100 / 3] * 3)


def test_focus_leaves_a_finite_gradient_where_nothing_is_wrong() -> None:
    logits = torch.tensor([[60.0, -60.0]], requires_grad=True)
    loss = make_loss(TrainConfig("resnet18", focal_gamma=0.5), LABELS, 2, torch.device("cpu"))
    loss(logits, torch.tensor([0])).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
