"""The learning-rate range test: what it suggests trains well, and it leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.vision.data.samples import Sample
from app.vision.errors import InvalidConfig, Stopped
from app.vision.settings.config import TrainConfig
from app.vision.training import fit
from app.vision.training.fit import find_rate
from app.vision.training.pictures import rate_curve
from app.vision.training.rate_search import HIGHEST, LOWEST, search_rate
from app.vision.training.result import FitResult
from tests.support.pictures import CLASSES, Recorder
from tests.support.runs import WEIGHTS, Fit

# Wide bounds: beyond these such a network learns next to nothing, or comes apart.
SANE = {
    ("head", "sgd"): (1e-3, 10.0),
    ("head", "adamw"): (1e-4, 1.0),
    ("all", "sgd"): (1e-5, 1e-2),
    ("all", "adamw"): (1e-6, 1e-2),
}


def search(samples: list[Sample], folder: Path, observer: Recorder | None = None, **fields: Any) -> Any:
    config = TrainConfig(**{"backbone": "resnet18-tiny64", "input_size": 32, "batch_size": 8} | fields)
    return find_rate(config, samples, CLASSES, weights=WEIGHTS, workdir=folder, observer=observer or Recorder())


@pytest.mark.parametrize(("train", "optimizer"), SANE)
def test_the_suggestion_is_sane_and_trains_well(run_fit: Fit, train: str, optimizer: str) -> None:
    done = run_fit(train=train, optimizer=optimizer, batch_size=8, epochs=8, find_rate=True)
    found = done.rate_search
    assert found is not None
    lowest, highest = SANE[train, optimizer]
    assert lowest <= found.suggestion <= highest
    assert done.config.learning_rate == found.suggestion
    assert max(entry["learning_rate"] for entry in done.history) <= found.suggestion
    assert done.metrics["val"]["accuracy"] >= 0.75
    assert done.history[-1]["train_loss"] < 0.6 * found.losses[0]
    assert len(found.rates) == len(found.losses)
    assert LOWEST == found.rates[0] < found.rates[-1] <= HIGHEST * 1.001
    # It has seen the loss fall and, unless a linear head bears every rate, rise again.
    assert min(found.losses) < 0.9 * found.losses[0]
    if train == "all":
        assert found.losses[-1] > 2 * min(found.losses)


def test_the_same_seed_finds_the_same_rate(samples: list[Sample], tmp_path: Path) -> None:
    fields: dict[str, Any] = {"train": "last_stages", "augmentation": "light", "mixup": 0.2, "ema": 0.9}
    first = search(samples, tmp_path / "a", **fields)
    assert search(samples, tmp_path / "b", **fields) == first
    assert search(samples, tmp_path / "c", **fields | {"seed": 1}).losses != first.losses


@pytest.mark.parametrize("train", ["head", "all"])
def test_the_network_is_left_as_it_was(run_fit: Fit, monkeypatch: pytest.MonkeyPatch, train: str) -> None:
    """A run at the rate that was found is, to the bit, the run that was told that rate."""
    states: list[dict[str, torch.Tensor]] = []

    def watched(task: Any, run: Any) -> Any:
        before = {name: tensor.clone() for name, tensor in run.network.state_dict().items()}
        found = search_rate(task, run)
        after = run.network.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        states.append(before)
        return found

    monkeypatch.setattr(fit, "search_rate", watched)
    fields: dict[str, Any] = {"train": train, "epochs": 2, "batch_size": 8}
    found = run_fit("found", find_rate=True, **fields)
    assert len(states) == 1
    told = run_fit("told", learning_rate=found.config.learning_rate, **fields)
    assert weights(found) == weights(told)


def weights(result: FitResult) -> list[bytes]:
    from app.vision.artefacts.model_file import load_model

    return [tensor.numpy().tobytes() for tensor in load_model(result.model_path).network.state_dict().values()]


def test_a_stopped_run_goes_on_at_the_rate_that_was_found(run_fit: Fit, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"find_rate": True, "epochs": 2, "batch_size": 8}
    unbroken = run_fit("unbroken", **fields)
    assert unbroken.rate_search is not None
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("stopped", Recorder(stop_after=len(unbroken.rate_search.rates) + 4, keep=kept), **fields)
    assert run_fit("resumed", resume=kept, **fields).model_path.read_bytes() == unbroken.model_path.read_bytes()


def test_a_search_can_be_stopped(run_fit: Fit) -> None:
    with pytest.raises(Stopped) as caught:
        run_fit("stopped", Recorder(stop_after=5), find_rate=True, epochs=2)
    assert not caught.value.checkpoint_written


def test_a_rate_is_not_both_given_and_looked_for() -> None:
    with pytest.raises(InvalidConfig, match=r"find_rate: and learning_rate 0\.1: leave one of them out"):
        TrainConfig("resnet18", find_rate=True, learning_rate=0.1).resolve()


def test_the_curve_shows_every_rate_and_the_suggestion(samples: list[Sample], tmp_path: Path) -> None:
    found = search(samples, tmp_path)
    figure = rate_curve(found)
    (axes,) = figure.axes
    assert list(axes.lines[0].get_xdata()) == found.rates
    assert list(axes.lines[0].get_ydata()) == found.losses
    assert axes.lines[1].get_xdata()[0] == found.suggestion
    assert axes.get_xscale() == "log"
