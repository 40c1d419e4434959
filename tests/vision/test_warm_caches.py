"""Runs that share a cache: nothing is fetched, decoded or computed twice, and the models are the same to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from app.vision.artefacts.model_file import load_model
from app.vision.data import features, resident
from app.vision.data.feeds import ImageFeed
from app.vision.data.rowcache import RowCache, Rows
from app.vision.data.samples import Sample
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.tasks import preparation
from app.vision.training.fit import fit
from app.vision.training.result import FitResult
from tests.support.pictures import CLASSES, Recorder
from tests.support.runs import WEIGHTS, Fit


class Runs:
    """Runs with one cache; counts the images that were fetched and those that went through the trunk for features."""

    def __init__(self, folder: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.samples = samples
        self.fetched = self.passed = self.done = 0
        feed = features.ImageFeed

        class Counting(feed):  # type: ignore[misc, valid-type]
            def __init__(feed_self, network: Any, packs: Any, *rest: Any) -> None:
                self.passed += sum(map(len, packs.values()))
                super().__init__(network, packs, *rest)

        monkeypatch.setattr(features, "ImageFeed", Counting)

    def fit(self, samples: list[Sample] | None = None, cache: str | None = "cache", **fields: Any) -> FitResult:
        def fetch(sample: Sample) -> Path:
            self.fetched += 1
            return sample.path

        self.fetched = self.passed = 0
        self.done += 1
        return fit(
            TrainConfig(**({"backbone": "resnet18-tiny64", "input_size": 32, "epochs": 3} | fields)),
            samples or self.samples,
            CLASSES,
            weights=WEIGHTS,
            workdir=self.folder / f"run-{self.done}",
            observer=Recorder(),
            cache=RowCache(self.folder / cache, 2**30) if cache else None,
            fetch=fetch,
        )


@pytest.fixture
def runs(tmp_path: Path, samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(tmp_path, samples, monkeypatch)


@pytest.mark.parametrize("augmentation", ["none", "standard"])
def test_a_second_job_starts_at_once_and_gives_the_same_model(runs: Runs, augmentation: str) -> None:
    views = 1 if augmentation == "none" else 2
    fields: dict[str, Any] = {"augmentation": augmentation, "views": 2, "head": HeadConfig((8,), 0.5)}
    cold = runs.fit(**fields)
    assert (runs.fetched, runs.passed) == (42, 24 * views + 18)
    warm = runs.fit(**fields)
    assert (runs.fetched, runs.passed) == (0, 0)
    assert warm.model_path.read_bytes() == cold.model_path.read_bytes()
    assert runs.fit(cache=None, **fields).model_path.read_bytes() == cold.model_path.read_bytes()
    runs.fit(**fields | {"epochs": 2, "learning_rate": 0.1, "head": HeadConfig()})
    assert (runs.fetched, runs.passed) == (0, 0)


def test_other_features_are_computed_from_the_same_pixels(runs: Runs) -> None:
    runs.fit()
    runs.fit(head=HeadConfig(pooling="max"))
    assert (runs.fetched, runs.passed) == (0, 42)
    runs.fit(augmentation="light", views=1)
    assert (runs.fetched, runs.passed) == (0, 24)
    runs.fit(augmentation="light", views=1, seed=1)
    assert (runs.fetched, runs.passed) == (0, 24)
    runs.fit(train="all", epochs=1)
    assert runs.fetched == 0


@pytest.mark.parametrize("augmentation", ["none", "standard"])
def test_a_dataset_that_has_grown_pays_for_the_new_images_alone(runs: Runs, augmentation: str) -> None:
    """And the model is what it would be without a cache, to the bit, though other images came in between."""
    fields: dict[str, Any] = {"augmentation": augmentation, "views": 1}
    runs.fit([sample for sample in runs.samples if not sample.path.stem.endswith(("-1", "-3"))], **fields)
    grown = runs.fit(**fields)
    new = sum(sample.path.stem.endswith(("-1", "-3")) for sample in runs.samples)
    assert (runs.fetched, runs.passed) == (new, new)
    alone = runs.fit(cache=None, **fields)
    assert runs.passed == 42
    assert grown.model_path.read_bytes() == alone.model_path.read_bytes()


def test_a_damaged_cache_costs_time_and_nothing_else(runs: Runs) -> None:
    cold = runs.fit()
    for path in (runs.folder / "cache").rglob("*.rows"):
        data = bytearray(path.read_bytes())
        data[10] ^= 255
        path.write_bytes(data)
    again = runs.fit()
    assert (runs.fetched, runs.passed) == (42, 42)
    assert again.model_path.read_bytes() == cold.model_path.read_bytes()


@pytest.mark.parametrize("augmentation", ["none", "standard"])
def test_features_train_the_head_that_the_frozen_trunk_would(
    run_fit: Fit, monkeypatch: pytest.MonkeyPatch, augmentation: str
) -> None:
    """With as many views as epochs, the head sees through the cache what it would see through the trunk."""
    fields: dict[str, Any] = {"augmentation": augmentation, "views": 4, "epochs": 4, "precision": "float32"}
    cached = run_fit("cached", **fields)

    def through_the_trunk(network: Any, images: Any, inputs: Any) -> ImageFeed:
        network.eval()
        seeds = {split: features.seeds_of(keys) for split, keys in images.keys.items()}
        return ImageFeed(network, images.packs(), seeds, images.preprocessing, inputs.config, inputs.device)

    monkeypatch.setattr(preparation, "make_feed", through_the_trunk)
    direct = run_fit("direct", **fields)
    np.testing.assert_allclose(
        cached.finished.arrays["probabilities"]["val"], direct.finished.arrays["probabilities"]["val"], atol=0.01
    )
    for name in ("train_loss", "val_loss"):
        assert cached.history[-1][name] == pytest.approx(direct.history[-1][name], abs=5e-3)
    other = run_fit("other", **fields | {"learning_rate": 0.003})  # a half more, to see that the bounds are narrow
    assert (
        np.abs(other.finished.arrays["probabilities"]["val"] - direct.finished.arrays["probabilities"]["val"]).max()
        > 0.02
    )


@pytest.mark.parametrize("augmentation", ["none", "strong"])
def test_loader_threads_change_no_bit_of_the_weights(run_fit: Fit, augmentation: str) -> None:
    fields: dict[str, Any] = {
        "train": "all",
        "epochs": 2,
        "batch_size": 5,
        "augmentation": augmentation,
        "accumulate": 2,
        "mixup": 0.2,
        "head": HeadConfig((8,), 0.5),
    }
    alone, threaded = (run_fit(f"w{count}", loader_workers=count, **fields) for count in (0, 2))
    expected = load_model(alone.model_path).network.state_dict()
    for name, tensor in load_model(threaded.model_path).network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("augmentation", ["none", "light"])
def test_images_that_lie_on_the_device_are_those_of_the_disk(
    run_fit: Fit, monkeypatch: pytest.MonkeyPatch, augmentation: str
) -> None:
    """As on a GPU with room for them: each is read once, whatever the epochs."""
    fields: dict[str, Any] = {"train": "last_stages", "epochs": 3, "batch_size": 8, "augmentation": augmentation}
    read = run_fit("read", **fields)
    monkeypatch.setattr(resident, "DEVICES", frozenset({"cpu"}))
    real, seen = Rows.read, []
    monkeypatch.setattr(Rows, "read", lambda rows, wanted: (seen.append(len(wanted)), real(rows, wanted))[1])
    kept = run_fit("resident", **fields)
    assert sum(seen) == 24 + 12 + 6
    assert kept.model_path.read_bytes() == read.model_path.read_bytes()
