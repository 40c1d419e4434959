"""The model file and the classifier that comes out of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from app.vision.artefacts.model_file import load_model, read_model_document
from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import BUNDLED, load_state_dict
from app.vision.engines.model import TrainedModel
from app.vision.errors import DamagedArtefact, InvalidData
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import build_network, load_trunk
from app.vision.runtime.memory import CHUNK
from app.vision.settings.config import HeadConfig, TrainConfig
from tests.support.classify import probabilities, save_classifier
from tests.support.pictures import CLASSES, draw

TINY = get_backbone("resnet18-tiny64")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained model whose answers are not all alike."""
    config = TrainConfig(TINY.name, head=HeadConfig((8,), 0.5), input_size=32).resolve()
    network = build_network(TINY, 3, config.head)
    load_trunk(network, TINY, load_state_dict(BUNDLED / TINY.weights_file, TINY))
    with torch.no_grad():
        for parameter in network.head.parameters():
            parameter.normal_(0, 0.15, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "model.safetensors"
    preprocessing = Preprocessing(36, 32)
    metrics = {"val": {"accuracy": 0.5}}
    save_classifier(path, network, config=config, classes=CLASSES, preprocessing=preprocessing, metrics=metrics)
    return path


@pytest.fixture
def classifier(model: Path) -> TrainedModel:
    return load_model(model)


def unsealed(entry: str) -> dict[str, Any]:
    """The entry as it was in files that bear no digest, so that what follows is not just refused as damaged."""
    return {key: value for key, value in json.loads(entry).items() if key != "sha256"} | {"version": 1}


def test_the_file_says_what_it_is(model: Path, classifier: TrainedModel) -> None:
    document = read_model_document(model)
    assert document["backbone"] == TINY.name
    assert document["classes"] == list(CLASSES)
    assert document["head"] == {"hidden": [8], "dropout": 0.5, "pooling": "avg"}
    assert document["metrics"] == {"val": {"accuracy": 0.5}}
    assert classifier.classes == CLASSES
    assert classifier.preprocessing == Preprocessing(36, 32)
    assert abs(classifier.nbytes - model.stat().st_size) < 50_000
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_a_file_from_before_there_were_temperatures_answers_as_ever(model: Path, classifier: TrainedModel) -> None:
    with safe_open(model, framework="pt") as file:
        entry = unsealed(file.metadata()["graftwork"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    batch = classifier.prepare(draw(0, 0))[None]
    before = probabilities(classifier, batch)
    entry["document"]["temperature"] = 2.0
    save_file(tensors, model, {"graftwork": json.dumps(entry)})
    softened = np.exp(np.log(before) / 2)
    np.testing.assert_allclose(probabilities(load_model(model), batch), softened / softened.sum(), atol=1e-6)
    del entry["document"]["temperature"]
    save_file(tensors, model, {"graftwork": json.dumps(entry)})
    np.testing.assert_allclose(probabilities(load_model(model), batch), before, atol=1e-6)


def test_answers_are_probabilities_whatever_the_batch(classifier: TrainedModel) -> None:
    batch = np.stack([classifier.prepare(draw(n % 3, n)) for n in range(CHUNK + 5)])
    assert batch.shape == (CHUNK + 5, 32, 32, 3)
    together = probabilities(classifier, batch)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    assert together.std(axis=0).min() > 1e-3
    for size in (1, 3, CHUNK):
        parts = [probabilities(classifier, batch[start : start + size]) for start in range(0, len(batch), size)]
        np.testing.assert_allclose(np.concatenate(parts), together, atol=1e-5)
    assert probabilities(classifier, batch[:0]).shape == (0, 3)


def test_pixels_of_another_shape_are_refused(classifier: TrainedModel) -> None:
    for shape, dtype in (((1, 31, 32, 3), np.uint8), ((1, 32, 32, 3), np.float32), ((32, 32, 3), np.uint8)):
        with pytest.raises(InvalidData, match=r"Expected uint8 \[N, 32, 32, 3\]"):
            classifier.answer(np.zeros(shape, dtype))


def test_a_file_cut_short_is_refused(model: Path) -> None:
    data = model.read_bytes()
    for length in (0, 7, 1000, len(data) - 1):
        model.write_bytes(data[:length])
        with pytest.raises(DamagedArtefact):
            load_model(model)


def test_foreign_files_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(DamagedArtefact, match=r"not a graftwork\.model"):
        load_model(BUNDLED / TINY.weights_file)
    torch.save({"a": torch.zeros(1)}, tmp_path / "pickle.pt")
    with pytest.raises(DamagedArtefact):
        load_model(tmp_path / "pickle.pt")
    with pytest.raises(DamagedArtefact):
        load_model(tmp_path / "absent")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("classes", ["only", "two"]),
        ("config", {"backbone": "resnet34"}),
        ("config", {"backbone": "nonsense"}),
        ("preprocessing", {}),
        ("temperature", 0.0),
        ("version", 3),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(model: Path, key: str, value: object) -> None:
    with safe_open(model, framework="pt") as file:
        entry = unsealed(file.metadata()["graftwork"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    (entry if key == "version" else entry["document"])[key] = value
    save_file(tensors, model, {"graftwork": json.dumps(entry)})
    with pytest.raises(DamagedArtefact):
        load_model(model)


def test_a_failed_write_leaves_the_old_file(model: Path, classifier: TrainedModel) -> None:
    before = model.read_bytes()
    config = TrainConfig(TINY.name).resolve()
    with pytest.raises(TypeError):
        save_classifier(
            model,
            classifier.network,
            config=config,
            classes=CLASSES,
            preprocessing=classifier.preprocessing,
            metrics={"not": {"JSON"}},
        )
    assert model.read_bytes() == before
    assert os.listdir(model.parent) == [model.name]  # noqa: PTH208
