"""What each field of a recipe does to a whole run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from app.vision.backbones.weights import load_state_dict
from app.vision.data.feeds import FeatureFeed
from app.vision.data.rowcache import Rows
from app.vision.data.samples import Sample
from app.vision.errors import Stopped
from app.vision.networks.network import Head
from app.vision.settings.config import TrainConfig
from app.vision.tasks import preparation
from app.vision.training.fit import fit
from app.vision.training.result import FitResult
from tests.support.pictures import Recorder, draw
from tests.support.runs import TINY, WEIGHTS, Fit

LAST = "head.layers.1.weight"  # of a linear head, after its dropout


def weights(result: FitResult) -> dict[str, Tensor]:
    return load_file(result.model_path)


def test_accumulated_batches_step_like_one_large_batch(run_fit: Fit) -> None:
    large = run_fit("large", epochs=5, batch_size=24)
    small = run_fit("small", epochs=5, batch_size=5, accumulate=5)
    other = run_fit("other", epochs=5, batch_size=5)
    torch.testing.assert_close(weights(small)[LAST], weights(large)[LAST], atol=1e-5, rtol=0)
    assert (weights(other)[LAST] - weights(large)[LAST]).abs().max() > 1e-3


def test_a_clipped_gradient_hardly_moves_the_weights(run_fit: Fit) -> None:
    fields: dict[str, Any] = {"optimizer": "sgd", "epochs": 2}
    free, clipped = run_fit("free", **fields), run_fit("clipped", clip_norm=1e-4, **fields)
    assert weights(free)[LAST].norm() > 1e-2
    # Two steps along gradients of length 1e-4, times the rate and what momentum makes of it.
    assert 0 < weights(clipped)[LAST].norm() < 1e-4


def test_l1_makes_most_weights_zero_and_l2_none(run_fit: Fit) -> None:
    sparse, dense = (run_fit(f"l1-{l1}", optimizer="sgd", l1=l1) for l1 in (0.2, 0.0))
    assert (weights(dense)[LAST] == 0).float().mean() < 0.1  # features that are never there have none to learn
    assert (weights(sparse)[LAST] == 0).float().mean() > 0.5
    assert sparse.metrics["val"]["accuracy"] >= 0.75


def test_smoothed_and_mixed_targets_make_a_modest_model(run_fit: Fit) -> None:
    def confidence(folder: str, **fields: Any) -> float:
        result = run_fit(folder, **fields)
        assert result.metrics["val"]["accuracy"] >= 0.75
        return result.history[-1]["train_loss"]

    plain = confidence("plain")
    assert confidence("smooth", label_smoothing=0.2) > plain + 0.1
    assert confidence("mixed", mixup=1.0) > plain + 0.1


def test_patience_ends_a_run_that_has_stopped_improving(run_fit: Fit) -> None:
    result = run_fit(patience=3, learning_rate=0.05, epochs=200)
    assert len(result.history) == result.best_epoch + 3 < 200


def test_the_average_of_the_weights_is_what_is_kept(run_fit: Fit) -> None:
    # One step from zero: of n = 1 steps the average has taken in all but (1 + n) / (10 + n).
    fields: dict[str, Any] = {"epochs": 1, "batch_size": 24}
    plain, average = run_fit("plain", **fields), run_fit("average", ema=0.99, **fields)
    torch.testing.assert_close(weights(average)[LAST], weights(plain)[LAST] * (1 - 2 / 11))
    assert average.history[0]["val_loss"] != plain.history[0]["val_loss"]
    assert average.history[0]["train_loss"] == plain.history[0]["train_loss"]


def test_an_average_does_not_disturb_the_training(run_fit: Fit) -> None:
    fields: dict[str, Any] = {"train": "last_stages", "epochs": 3, "batch_size": 8}
    plain, average = run_fit("plain", **fields), run_fit("average", ema=0.9, **fields)
    for before, after in zip(plain.history, average.history, strict=True):
        assert after["train_loss"] == before["train_loss"]


def test_stages_thaw_one_after_the_other_with_their_statistics(run_fit: Fit, tmp_path: Path) -> None:
    published = load_state_dict(WEIGHTS, TINY)
    fields: dict[str, Any] = {"train": "last_stages", "last_stages": 2, "unfreeze_every": 1, "epochs": 3}
    moved = []
    for steps in (3, 6, 9):  # three steps an epoch
        kept = tmp_path / f"{steps}.safetensors"
        with pytest.raises(Stopped):
            run_fit(f"run-{steps}", Recorder(stop_after=steps, keep=kept), batch_size=8, **fields)
        prefix = "model.trunk."
        stored = {
            name.removeprefix(prefix): value for name, value in load_file(kept).items() if name.startswith(prefix)
        }
        for kind in (".weight", ".running_mean"):
            moved.append(
                {
                    name.split(".")[0]
                    for name, value in stored.items()
                    if name.endswith(kind) and not torch.equal(value, published[name])
                }
            )
    assert moved == [set(), set(), {"layer4"}, {"layer4"}, {"layer4", "layer3"}, {"layer4", "layer3"}]


@pytest.mark.parametrize(("train", "scaled"), [("head", True), ("last_stages", False), ("all", False)])
def test_features_are_standardised_only_behind_a_frozen_trunk(run_fit: Fit, train: str, scaled: bool) -> None:
    """Dividing by small spreads magnifies the gradient into a trunk that learns: SGD at an ordinary rate came apart."""
    scale = weights(run_fit(train=train, epochs=1))["head.scale"]
    assert bool((scale != 1).any()) is scaled


@pytest.fixture
def features_of(run_fit: Fit, monkeypatch: pytest.MonkeyPatch) -> Callable[..., NDArray[np.float32]]:
    """What the head of a run was trained on: [views, images, features]."""

    def run(folder: str, **fields: Any) -> NDArray[np.float32]:
        tables: list[NDArray[np.float32]] = []

        def feed(head: Head, features: Mapping[str, Sequence[Rows]], device: torch.device) -> FeatureFeed:
            tables.extend(view.read(np.arange(len(view))) for view in features["train"])
            return FeatureFeed(head, features, device)

        with monkeypatch.context() as patch:
            patch.setattr(preparation, "FeatureFeed", feed)
            run_fit(folder, epochs=1, **fields)
        return np.stack(tables)

    return run


def test_views_are_that_many_and_differ(features_of: Callable[..., NDArray[np.float32]]) -> None:
    for views in (1, 3):
        table = features_of(f"run-{views}", augmentation="standard", views=views)
        assert len(table) == views
        assert len(np.unique(table[:, 0, 0])) == views
    assert not np.allclose(features_of("plain")[0], table[0])


def test_reduced_precision_is_what_was_asked_for_and_close(
    features_of: Callable[..., NDArray[np.float32]],
) -> None:
    tables = {}
    for precision in ("float32", "bfloat16", "auto"):
        tables[precision] = features_of(precision, augmentation="light", views=1, precision=precision)
    spread = tables["float32"].std()
    gap = np.abs(tables["float32"] - tables["bfloat16"]) / spread
    assert 1e-4 < gap.mean() < 0.05
    assert any((tables["auto"] == tables[other]).all() for other in ("float32", "bfloat16"))


@pytest.mark.parametrize(("imbalance", "belief"), [("none", 1 / 11), ("weights", 1 / 2), ("sampling", 1 / 2)])
def test_rare_classes_are_made_up_for(tmp_path: Path, imbalance: Any, belief: float) -> None:
    """The same three pictures in both classes, ten times as often in one: nothing but the counts can be learnt."""
    samples = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        draw(0, number).save(path)
        samples += [Sample(path, 0, "train")] * 10 + [Sample(path, 1, "train")]
        samples += [Sample(path, 0, "val")] * 10 + [Sample(path, 1, "val")]
    config = TrainConfig(TINY.name, input_size=32, epochs=60, batch_size=33, learning_rate=0.05, imbalance=imbalance)
    result = fit(config, samples, ("common", "rare"), weights=WEIGHTS, workdir=tmp_path / "run", observer=Recorder())
    # Where every picture is believed to be rare with that probability, and one in eleven is, this is the loss. (Which
    # epoch is kept says nothing: the best is the one whose belief is nearest to how often they are among these.)
    expected = -(10 * math.log(1 - belief) + math.log(belief)) / 11
    assert result.history[-1]["val_loss"] == pytest.approx(expected, abs=0.1)
