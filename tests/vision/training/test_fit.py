"""Whole runs: what they learn, report and refuse."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.vision.artefacts.model_file import load_model
from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import BUNDLED, WeightStore, load_state_dict
from app.vision.data.samples import Sample
from app.vision.errors import Diverged, InvalidConfig, InvalidData, OutOfMemory, WeightsUnavailable
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.training.fit import fit, memory_errors
from tests.support.classify import answers_of, probabilities
from tests.support.pictures import CLASSES, Recorder
from tests.support.runs import WEIGHTS, Fit

EPOCH_KEYS = {
    "epoch",
    "epochs",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_macro_f1",
    "learning_rate",
    "images_per_s",
    "duration_s",
}
RUNS: list[dict[str, Any]] = [
    {"train": "head"},
    {"train": "head", "augmentation": "standard", "head": HeadConfig((16,), 0.2)},
    # In float32 an epoch is validated exactly as the model is evaluated in the end.
    {"train": "last_stages", "epochs": 3, "batch_size": 8, "precision": "float32"},
    {"train": "all", "epochs": 3, "batch_size": 8, "precision": "float32"},
]


@pytest.mark.parametrize("fields", RUNS, ids=lambda fields: "-".join(str(value) for value in fields.values())[:30])
def test_it_learns_reports_and_predicts_what_it_evaluated(
    run_fit: Fit, samples: list[Sample], fields: dict[str, Any]
) -> None:
    recorder = Recorder()
    result = run_fit(observer=recorder, **fields)

    epochs = result.config.epochs
    assert epochs is not None
    assert [metrics["epoch"] for metrics in recorder.epochs] == list(range(1, epochs + 1))
    assert all(metrics.keys() == EPOCH_KEYS for metrics in recorder.epochs)
    assert recorder.epochs == result.history
    assert recorder.epochs[-1]["train_loss"] < recorder.epochs[0]["train_loss"]
    assert result.metrics["val"]["accuracy"] >= 0.75

    fractions = [fraction for _, fraction, _ in recorder.phases]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0

    # The best epoch by accuracy, then by loss, is the one in the file.
    best = max(result.history, key=lambda metrics: (metrics["val_accuracy"], -metrics["val_loss"]))
    assert result.best_epoch == best["epoch"]
    assert result.metrics["val"]["accuracy"] == best["val_accuracy"]
    assert result.metrics["val"]["calibration"]["log_loss_before"] == pytest.approx(best["val_loss"], abs=1e-5)

    # The temperature suits the validation images, and the file carries it.
    calibration = result.metrics["val"]["calibration"]
    assert calibration["temperature"] == result.finished.document["temperature"] != 1.0
    assert result.metrics["val"]["log_loss"] <= calibration["log_loss_before"]

    # Image by image, the file answers what the trainer's own evaluation found.
    classifier = load_model(result.model_path)
    assert classifier.classes == CLASSES
    assert answers_of(classifier).temperature == calibration["temperature"]
    for split in ("val", "test"):
        files = [sample.path for sample in samples if sample.split == split]
        alone = np.concatenate(
            [probabilities(classifier, classifier.prepare(file.read_bytes())[None]) for file in files]
        )
        np.testing.assert_allclose(alone, result.finished.arrays["probabilities"][split], atol=1e-5)
        together = probabilities(classifier, np.stack([classifier.prepare(file) for file in files]))
        np.testing.assert_allclose(alone, together, atol=1e-5)


@pytest.mark.parametrize("train", ["head", "all"])
def test_same_seed_same_file(run_fit: Fit, train: str) -> None:
    fields: dict[str, Any] = {"train": train, "epochs": 2, "augmentation": "strong", "head": HeadConfig((8,), 0.5)}
    first, again, other = (run_fit(name, seed=seed, **fields) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first.model_path.read_bytes() == again.model_path.read_bytes()
    assert first.model_path.read_bytes() != other.model_path.read_bytes()


def test_the_process_keeps_its_own_random_state(run_fit: Fit) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_fit(epochs=1, head=HeadConfig((4,), 0.5))
    assert torch.equal(torch.rand(3), expected)


def test_a_frozen_trunk_is_the_published_one(run_fit: Fit) -> None:
    trained = load_model(run_fit().model_path).network.state_dict()
    published = WeightStore(None, Path("unused")).obtain(get_backbone("resnet18-tiny64"))
    assert published == BUNDLED / "resnet18-tiny64.safetensors"
    for name, tensor in load_state_dict(published, get_backbone("resnet18-tiny64")).items():
        if not name.startswith("fc."):
            place = f"trunk.{name}" if name.startswith("layer") else f"trunk.stem.{name}"
            assert torch.equal(trained[place], tensor), name


def test_an_absurd_learning_rate_is_called_divergence(run_fit: Fit) -> None:
    with pytest.raises(Diverged, match="lower the learning rate") as caught:
        run_fit(train="all", optimizer="sgd", learning_rate=10.0, schedule="constant", epochs=20, weight_decay=100.0)
    assert caught.value.epoch >= 1
    assert caught.value.step >= 1


def test_a_batch_too_large_for_the_memory_is_called_that() -> None:
    config = TrainConfig("resnet18", batch_size=48).resolve()
    with pytest.raises(OutOfMemory, match="batch of 48 images") as caught, memory_errors(config):
        torch.empty(1 << 50)
    assert caught.value.batch_size == 48
    with pytest.raises(RuntimeError, match="shape"), memory_errors(config):
        torch.zeros(2) @ torch.zeros(3, 3)


def attempt(samples: list[Sample], workdir: Path, classes: tuple[str, ...] = CLASSES, **fields: Any) -> None:
    config = TrainConfig(**({"backbone": "resnet18-tiny64", "input_size": 32} | fields))
    fit(config, samples, classes, weights=WEIGHTS, workdir=workdir, observer=Recorder())


def test_data_that_cannot_be_trained_on_is_refused(samples: list[Sample], tmp_path: Path) -> None:
    train_only = [sample for sample in samples if sample.split == "train"]
    with pytest.raises(InvalidData, match="No validation images"):
        attempt(train_only, tmp_path)
    with pytest.raises(InvalidData, match="No training images of stripes"):
        attempt([sample for sample in samples if (sample.split, sample.label) != ("train", 2)], tmp_path)
    with pytest.raises(InvalidData, match="has label 2, but there are 2 classes"):
        attempt(samples, tmp_path, CLASSES[:2])
    with pytest.raises(InvalidData, match="at least two"):
        attempt([sample for sample in samples if sample.label == 0], tmp_path, CLASSES[:1])
    with pytest.raises(InvalidData, match="same name"):
        attempt(samples, tmp_path, ("a", "b", "a"))
    gone = dataclasses.replace(samples[0], path=tmp_path / "gone.png")
    with pytest.raises(InvalidData, match=r"gone\.png"):
        attempt([*samples, gone], tmp_path)


def test_a_bad_configuration_or_foreign_weights_are_refused(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="epochs"):
        attempt(samples, tmp_path, epochs=0)
    with pytest.raises(WeightsUnavailable, match="weights of another network"):
        attempt(samples, tmp_path, backbone="resnet34")
