"""Runs that come apart are ended and say where; noisy ones are let be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.vision.errors import Diverged
from app.vision.settings.config import HeadConfig
from app.vision.tasks.classify.divergence import hopeless
from app.vision.training import loop
from app.vision.training.checkpoint import Position
from app.vision.training.divergence import STEPS, exploded
from tests.support.pictures import Recorder
from tests.support.runs import Fit


def steps_until_the_end(losses: list[float], right: float, classes: int) -> int | None:
    position = Position()
    for step, loss in enumerate(losses, start=1):
        lost = hopeless(position.watched, loss, right, classes)
        position.lost_steps = position.lost_steps + 1 if lost else 0
        if exploded(position):
            return step
    return None


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_an_exploding_loss_ends_the_run_and_a_noisy_one_does_not(classes: int) -> None:
    chance, rng = math.log(classes), np.random.default_rng(0)
    noisy = (chance * rng.lognormal(0.0, 1.0, 2000)).tolist()
    assert max(noisy) > 10 * chance
    assert steps_until_the_end(noisy, 1 / classes, classes) is None
    assert steps_until_the_end([chance] * 30 + [1e6] + [chance] * 5, 1 / classes, classes) is None
    ended = steps_until_the_end([chance] * 30 + [100 * chance] * 100, 1 / classes, classes)
    assert ended is not None
    assert 30 + STEPS <= ended < 30 + 2 * STEPS
    # A linear head with huge weights is sure of itself, and mostly right.
    assert steps_until_the_end([100 * chance] * 500, 0.9, classes) is None


@pytest.mark.parametrize(
    "fields", [{"train": "all", "optimizer": "sgd", "learning_rate": 5.0}, {"train": "all", "learning_rate": 1.0}]
)
def test_a_rate_far_too_high_is_noticed(run_fit: Fit, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    monkeypatch.setattr(loop, "REST_S", 1e9)  # no checkpoint, however slow the machine is
    with pytest.raises(Diverged, match=r"in epoch \d+, step \d+: lower the learning rate") as caught:
        run_fit("a", epochs=20, batch_size=8, schedule="constant", **fields)
    assert caught.value.checkpoint is None
    assert 1 <= caught.value.step <= 3


def test_the_last_good_checkpoint_is_kept_and_can_be_gone_on_with_at_another_rate(
    run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run at a rate that suits it until the network is broken from outside."""
    monkeypatch.setattr(loop, "REST_S", 0.0)
    fields: dict[str, Any] = {"epochs": 12, "batch_size": 8, "learning_rate": 0.01, "schedule": "constant"}

    class Breaks(Recorder):
        def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
            super().checkpoint(path, epoch, step, best)
            if epoch == 4:
                with torch.no_grad():
                    networks[0].head.layers[-1].weight.mul_(-1e4)

    networks: list[Any] = []
    original = loop.make_optimizer
    monkeypatch.setattr(
        loop, "make_optimizer", lambda network, *rest: networks.append(network) or original(network, *rest)
    )  # type: ignore[func-returns-value]
    broken = Breaks(keep=tmp_path / "kept.safetensors")
    with pytest.raises(Diverged, match="exploded") as caught:
        run_fit("a", broken, **fields)
    # None was written after that, although an epoch's end came by: what is kept is good.
    assert caught.value.checkpoint == broken.checkpoints[-1] == (4, 0)
    assert caught.value.epoch > 5
    assert "The last good checkpoint: epoch 4, step 0" in str(caught.value)
    monkeypatch.undo()
    resumed = run_fit("b", resume=broken.keep, **fields | {"learning_rate": 0.001, "clip_norm": 1.0})
    assert resumed.config.learning_rate == 0.001
    assert [entry["learning_rate"] for entry in resumed.history] == [0.01] * 3 + [0.001] * 9


@pytest.mark.parametrize("where", ["weights", "statistics"])
def test_what_is_infinite_and_does_not_show_in_the_loss_is_noticed(
    run_fit: Fit, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Minus infinity before a ReLU, or an infinite variance in a batch norm: both answer with zeros."""
    original = loop.apply_gradients
    networks: list[Any] = []
    make = loop.make_optimizer
    monkeypatch.setattr(loop, "make_optimizer", lambda network, *rest: networks.append(network) or make(network, *rest))  # type: ignore[func-returns-value]

    def apply(*arguments: Any, **named: Any) -> None:
        original(*arguments, **named)
        with torch.no_grad():
            if where == "weights":
                networks[0].head.layers[1].bias.fill_(-math.inf)
            else:
                networks[0].trunk.layer4[1].bn2.running_var.fill_(math.inf)

    monkeypatch.setattr(loop, "apply_gradients", apply)
    recorder = Recorder(stop_after=2)
    with pytest.raises(Diverged, match="The weights are not finite in epoch 1, step 2") as caught:
        run_fit("a", recorder, train="last_stages", epochs=2, batch_size=8, head=HeadConfig((8,)))
    assert recorder.checkpoints == []
    assert caught.value.checkpoint is None
