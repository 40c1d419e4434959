"""Runs that are stopped and resumed end where an unbroken run ends, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from app.vision.artefacts.tensorfile import read_tensors, write_tensors
from app.vision.errors import DamagedArtefact, Stopped
from app.vision.settings.config import HeadConfig
from app.vision.settings.presets import Transform
from app.vision.training import loop
from app.vision.training.checkpoint import KIND
from tests.support.pictures import Recorder
from tests.support.runs import Fit

# 24 training images in batches of 8: three steps an epoch, six in all.
RUNS: dict[str, dict[str, Any]] = {
    "head": {"train": "head", "augmentation": "light", "head": HeadConfig((8,), 0.3)},
    "sgd": {"train": "head", "optimizer": "sgd", "schedule": "step"},
    "last_stages": {"train": "last_stages", "optimizer": "adam"},
    "all": {"train": "all", "augmentation": "strong", "head": HeadConfig((8,), 0.3)},
}
SHORT = {"epochs": 2, "batch_size": 8}

# Everything at once that draws, counts or remembers; two batches a step make three steps an epoch again.
RICH: dict[str, Any] = {
    "train": "last_stages",
    "unfreeze_every": 1,
    "layer_decay": 0.5,
    "epochs": 3,
    "batch_size": 4,
    "accumulate": 2,
    "mixup": 0.3,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "focal_gamma": 1.0,
    "imbalance": "sampling",
    "ema": 0.9,
    "clip_norm": 1.0,
    "l1": 0.01,
    "schedule": "one_cycle",
    "patience": 5,
    "head": HeadConfig((8,), 0.3, "gem"),
    "augmentation": (Transform("crop"), Transform("erase", {"probability": 0.5})),
}


@pytest.mark.parametrize("name", RUNS)
def test_stopped_anywhere_and_resumed_the_end_is_the_same(run_fit: Fit, tmp_path: Path, name: str) -> None:
    fields = RUNS[name] | SHORT
    unbroken = run_fit("unbroken", **fields)
    for step in {"head": (1, 3, 5), "all": (2, 3)}.get(name, (4,)):
        kept = tmp_path / f"kept-{step}.safetensors"
        recorder = Recorder(stop_after=step, keep=kept)
        with pytest.raises(Stopped) as caught:
            run_fit(f"stopped-{step}", recorder, **fields)
        assert caught.value.checkpoint_written
        assert recorder.checkpoints[-1:] == [((step - 1) // 3 + 1, (step - 1) % 3 + 1)]
        resumed = run_fit(f"resumed-{step}", resume=kept, **fields)
        assert resumed.model_path.read_bytes() == unbroken.model_path.read_bytes()
        assert strip(resumed.history) == strip(unbroken.history)
        assert resumed.best_epoch == unbroken.best_epoch


def test_from_every_step_with_everything_switched_on(
    run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is written at every step; what goes on from each of them ends as if there had been none."""
    unbroken = run_fit("unbroken", **RICH)
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr(loop, "LONGEST_S", 0.0)
    watched = Recorder(keep=kept)
    assert run_fit("watched", watched, **RICH).model_path.read_bytes() == unbroken.model_path.read_bytes()
    assert watched.checkpoints == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3)]
    monkeypatch.setattr(loop, "LONGEST_S", 600.0)
    for epoch, step in watched.checkpoints:
        resumed = run_fit("resumed", resume=kept / f"{epoch}-{step}.safetensors", **RICH)
        assert resumed.model_path.read_bytes() == unbroken.model_path.read_bytes(), (epoch, step)
        assert strip(resumed.history) == strip(unbroken.history)


def test_plateaus_and_patience_are_remembered(run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields: dict[str, Any] = {"schedule": "plateau", "patience": 5, "epochs": 60, "learning_rate": 0.5, "warmup": 0.0}
    unbroken = run_fit("unbroken", **fields)
    rates = [metrics["learning_rate"] for metrics in unbroken.history]
    assert rates[-1] < rates[0]
    assert len(rates) == unbroken.best_epoch + 5 < 60
    monkeypatch.setattr(loop, "REST_S", 0.0)
    for step in (len(rates) - 4, len(rates) - 1):
        kept = tmp_path / f"{step}.safetensors"
        with pytest.raises(Stopped):
            run_fit(f"stopped-{step}", Recorder(stop_after=step, keep=kept), **fields)
        resumed = run_fit(f"resumed-{step}", resume=kept, **fields)
        assert strip(resumed.history) == strip(unbroken.history)
        assert resumed.model_path.read_bytes() == unbroken.model_path.read_bytes()


def strip(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the figures that a clock decides."""
    return [{key: metrics[key] for key in metrics if key not in ("duration_s", "images_per_s")} for metrics in history]


def test_a_run_may_be_stopped_more_than_once(run_fit: Fit, tmp_path: Path) -> None:
    fields = RUNS["head"] | SHORT
    unbroken = run_fit("unbroken", **fields)
    kept: Path | None = None
    for step in range(1, 6):
        following = tmp_path / f"{step}.safetensors"
        with pytest.raises(Stopped):
            run_fit(f"run-{step}", Recorder(stop_after=1, keep=following), resume=kept, **fields)
        kept = following
    assert run_fit("last", resume=kept, **fields).model_path.read_bytes() == unbroken.model_path.read_bytes()


def test_a_checkpoint_leaves_the_frozen_trunk_out(run_fit: Fit, tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("a", Recorder(stop_after=1, keep=kept), **SHORT)
    assert kept.stat().st_size < 100_000
    with safe_open(kept, framework="pt") as file:
        assert not [name for name in file.keys() if "trunk" in name]  # noqa: SIM118
    assert not (tmp_path / "a" / "checkpoint.safetensors").exists()


def test_stopping_before_the_first_step_writes_nothing(run_fit: Fit) -> None:
    class Impatient(Recorder):
        def should_stop(self) -> bool:
            return True

    recorder = Impatient()
    with pytest.raises(Stopped) as caught:
        run_fit("a", recorder)
    assert not caught.value.checkpoint_written
    assert recorder.checkpoints == []


def test_damaged_and_foreign_checkpoints_are_refused(run_fit: Fit, tmp_path: Path) -> None:
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("a", Recorder(stop_after=2, keep=kept), **SHORT)
    with pytest.raises(DamagedArtefact, match="another configuration"):
        run_fit("b", resume=kept, epochs=3, batch_size=8)
    model = run_fit("c", epochs=1).model_path
    with pytest.raises(DamagedArtefact, match=r"not a graftwork\.checkpoint"):
        run_fit("d", resume=model, **SHORT)
    kept.write_bytes(kept.read_bytes()[:-50])
    with pytest.raises(DamagedArtefact, match="is damaged"):
        run_fit("e", resume=kept, **SHORT)
    with pytest.raises(DamagedArtefact):
        run_fit("f", resume=tmp_path / "absent", **SHORT)


def test_checkpoints_come_after_epochs_and_within_long_ones(
    run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = RUNS["head"] | {"epochs": 3, "batch_size": 8}
    quick = Recorder()
    unbroken = run_fit("unbroken", quick, **fields)
    assert quick.checkpoints == []  # the run is over before one would be worth its while

    monkeypatch.setattr(loop, "REST_S", 0.0)
    recorder = Recorder(keep=tmp_path / "kept.safetensors")
    run_fit("watched", recorder, **fields)
    assert recorder.checkpoints == [(2, 0), (3, 0)]
    resumed = run_fit("resumed", resume=recorder.keep, **fields)
    assert resumed.model_path.read_bytes() == unbroken.model_path.read_bytes()

    monkeypatch.setattr(loop, "LONGEST_S", 0.0)
    recorder = Recorder()
    run_fit("slow", recorder, **fields)
    assert recorder.checkpoints[:4] == [(1, 1), (1, 2), (1, 3), (2, 0)]


def test_the_first_checkpoint_with_the_best_weights_is_marked(
    run_fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "REST_S", 0.0)
    recorder = Recorder(keep=tmp_path / "kept.safetensors")
    done = run_fit("watched", recorder, **RUNS["head"] | {"epochs": 6, "batch_size": 8})
    best, improved = (-1.0, 0.0), []
    for entry in done.history:
        if (entry["val_accuracy"], -entry["val_loss"]) > best:
            best = (entry["val_accuracy"], -entry["val_loss"])
            improved.append((entry["epoch"] + 1, 0))
    assert recorder.best == [place for place in improved if place in recorder.checkpoints]
    assert recorder.best


def test_a_checkpoint_from_before_a_field_was_added_is_gone_on_with(run_fit: Fit, tmp_path: Path) -> None:
    fields = RUNS["head"] | SHORT
    unbroken = run_fit("unbroken", **fields)
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        run_fit("a", Recorder(stop_after=2, keep=kept), **fields)
    tensors, document = read_tensors(kept, KIND)
    del document["identity"]["config"]["focal_gamma"], document["position"]["lost_steps"]
    write_tensors(kept, KIND, tensors, document)
    assert run_fit("b", resume=kept, **fields).model_path.read_bytes() == unbroken.model_path.read_bytes()
    with pytest.raises(DamagedArtefact, match="another configuration"):
        run_fit("c", resume=kept, **fields | {"focal_gamma": 2.0})
    document["identity"]["config"]["from_a_later_version"] = 1
    write_tensors(kept, KIND, tensors, document)
    with pytest.raises(DamagedArtefact, match="another configuration"):
        run_fit("d", resume=kept, **fields)
