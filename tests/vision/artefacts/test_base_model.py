"""A fine-tuned model is fine-tuned again: its trunk, preprocessing and, where it fits, its head are the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from app.vision.artefacts.base_model import file_sha256
from app.vision.artefacts.model_file import KIND, load_model
from app.vision.artefacts.tensorfile import read_tensors
from app.vision.data.samples import Sample
from app.vision.errors import DamagedArtefact, InvalidConfig, Stopped, WeightsUnavailable
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.training.fit import fit
from app.vision.training.result import FitResult
from tests.support.pictures import CLASSES, Recorder, make_samples
from tests.support.runs import WEIGHTS

NO_STEPS: dict[str, Any] = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1}


def train(
    folder: Path,
    samples: list[Sample],
    weights: Path,
    classes: tuple[str, ...] = CLASSES,
    resume: Path | None = None,
    observer: Recorder | None = None,
    **fields: Any,
) -> FitResult:
    config = TrainConfig(**{"backbone": "resnet18-tiny64", "input_size": 32, "batch_size": 8} | fields)
    return fit(
        config, samples, classes, weights=weights, workdir=folder, observer=observer or Recorder(), resume=resume
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every stage of it has learnt, on other pictures of the same kinds."""
    folder = tmp_path_factory.mktemp("base")
    samples = make_samples(folder, train=10, val=3, test=0)
    return train(folder / "run", samples, WEIGHTS, train="all", epochs=10, seed=9).model_path


def tensors(path: Path, part: str) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in read_tensors(path, KIND)[0].items() if name.startswith(part)}


def test_the_run_begins_with_the_base_models_trunk_and_head_to_the_bit(
    base: Path, samples: list[Sample], tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"base_model": file_sha256(base), **NO_STEPS}
    same = train(tmp_path / "same", samples, base, **fields)
    published = train(tmp_path / "published", samples, WEIGHTS, **NO_STEPS)
    was, trunk = tensors(base, "trunk."), tensors(same.model_path, "trunk.")
    assert all(torch.equal(trunk[name], was[name]) for name in was)
    assert not torch.equal(
        tensors(published.model_path, "trunk.")["trunk.stem.conv1.weight"], was["trunk.stem.conv1.weight"]
    )
    head = tensors(same.model_path, "head.")
    for name, tensor in tensors(base, "head.").items():
        torch.testing.assert_close(head[name], tensor, atol=1e-6, rtol=0)
    # Other classes, or other layers, need a head of their own; the trunk stays.
    for number, (classes, extra) in enumerate([(("a", "b", "c"), {}), (CLASSES, {"head": HeadConfig((8,))})]):
        other = train(tmp_path / f"other-{number}", samples, base, classes, **fields | extra)
        trunk = tensors(other.model_path, "trunk.")
        assert all(torch.equal(trunk[name], was[name]) for name in was)
        assert (
            float(tensors(other.model_path, "head.layers")[f"head.layers.{'4' if extra else '1'}.weight"].abs().max())
            < 1e-6
        )


def test_it_starts_better_than_published_weights(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    fields: dict[str, Any] = {"epochs": 2, "learning_rate": 1e-3}
    fresh = train(tmp_path / "fresh", samples, WEIGHTS, **fields).history
    again = train(tmp_path / "again", samples, base, base_model=file_sha256(base), **fields).history
    # One epoch is ahead of two from published weights.
    assert again[0]["val_loss"] < fresh[1]["val_loss"]
    assert again[0]["val_accuracy"] >= fresh[1]["val_accuracy"]


def test_preprocessing_is_inherited_and_stopped_runs_go_on(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    fields: dict[str, Any] = {"base_model": file_sha256(base), "train": "last_stages", "epochs": 2}
    whole = train(tmp_path / "whole", samples, base, **fields)
    assert whole.preprocessing == load_model(base).preprocessing
    kept = tmp_path / "kept.safetensors"
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", samples, base, observer=Recorder(stop_after=4, keep=kept), **fields)
    resumed = train(tmp_path / "resumed", samples, base, resume=kept, **fields)
    assert resumed.model_path.read_bytes() == whole.model_path.read_bytes()
    with pytest.raises(DamagedArtefact, match="another configuration"):
        train(tmp_path / "other", samples, WEIGHTS, resume=kept, **fields | {"base_model": None})


def test_another_file_than_the_one_named_is_refused(base: Path, samples: list[Sample], tmp_path: Path) -> None:
    digest = file_sha256(base)
    for path, fields in (
        (WEIGHTS, {"base_model": digest}),
        (WEIGHTS, {"base_model": file_sha256(WEIGHTS)}),
        (tmp_path / "absent", {"base_model": digest}),
        (base, {"base_model": digest, "backbone": "resnet18"}),
    ):
        with pytest.raises(WeightsUnavailable, match="is not the model to start from"):
            train(tmp_path / "run", samples, path, **fields)
    with pytest.raises(InvalidConfig, match="base_model: 'pets' is not the SHA-256"):
        train(tmp_path / "run", samples, base, base_model="pets")
