"""What is foretold of a training, against the networks that torch builds and against real trainings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from app.vision.backbones.architecture import stages
from app.vision.backbones.catalogue import BACKBONES, get_backbone
from app.vision.data.rowcache import RowCache
from app.vision.data.samples import Sample
from app.vision.networks.network import build_network, set_trainable
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.training import loop
from app.vision.training.estimate import disk, memory, network_size
from app.vision.training.fit import fit
from tests.support.images import REPOSITORY
from tests.support.pictures import CLASSES, Recorder
from tests.support.runs import WEIGHTS


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("train", ["head", "last_stages", "all"])
def test_parameters_are_those_of_the_network(name: str, train: str) -> None:
    config = TrainConfig(name, train=train, last_stages=2, head=HeadConfig((7,))).resolve()  # type: ignore[arg-type]
    network = build_network(get_backbone(name), 5, config.head)
    set_trainable(network, config)
    size = network_size(config, 5)
    parameters = list(network.parameters())
    assert size.parameters == sum(one.numel() for one in parameters)
    assert size.trainable == sum(one.numel() for one in parameters if one.requires_grad)
    assert size.learning == network.learning
    buffers = [one for key, one in network.named_buffers() if not key.endswith("num_batches_tracked")]
    assert size.statistics == sum(one.numel() for one in buffers)
    assert size.features == network.features


def test_what_layers_keep_grows_with_the_area() -> None:
    for backbone in BACKBONES.values():
        small, large = (sum(stage.kept for stage in stages(backbone, side)) for side in (224, 448))
        assert large == 4 * small, backbone.name


def peak(**fields: object) -> tuple[int, dict[str, int]]:
    """Bytes that a real training took at most in a process of its own, and what was foretold."""
    config = TrainConfig("resnet18-tiny64", epochs=1, precision="float32", augmentation="none", **fields)  # type: ignore[arg-type]
    command = [sys.executable, "-m", "tests.support.peak_memory", json.dumps(config.to_dict())]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert isinstance(config.batch_size, int)
    return int(done.stdout), memory(config.resolve(), 3, config.batch_size)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.skipif(torch.cuda.is_available(), reason="the batch is in a GPU's memory")
def test_memory_is_that_of_a_real_training() -> None:
    """All of it within a factor of 1.5, and what a larger batch adds within the same. That batch is large, for peaks
    differ by a hundred megabytes from run to run."""
    taken, foretold = peak(train="all", batch_size=8)
    more, more_foretold = peak(train="all", batch_size=192)
    for found, told in ((taken, sum(foretold.values())), (more, sum(more_foretold.values()))):
        assert 1 / 1.5 < told / found < 1.5
    assert 1 / 1.5 < (sum(more_foretold.values()) - sum(foretold.values())) / (more - taken) < 1.5


@pytest.mark.parametrize("fields", [{"train": "head"}, {"augmentation": "light", "views": 2}, {"train": "last_stages"}])
def test_disk_is_that_of_a_real_training(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str]
) -> None:
    monkeypatch.setattr(loop, "REST_S", 0.0)  # a checkpoint after every epoch
    config = TrainConfig("resnet18-tiny64", input_size=64, epochs=3, **fields)  # type: ignore[arg-type]
    cache, kept = RowCache(tmp_path / "cache", 2**30), tmp_path / "kept.safetensors"
    result = fit(
        config, samples, CLASSES, weights=WEIGHTS, workdir=tmp_path / "run", observer=Recorder(keep=kept), cache=cache
    )
    totals = {split: sum(one.split == split for one in samples) for split in ("train", "val", "test")}
    told = disk(config.resolve(), 3, totals)
    found = {
        "cache": cache.nbytes(),
        "checkpoints": 3 * kept.stat().st_size,
        "model": result.model_path.stat().st_size,
    }
    told["cache"] = told.pop("pixels") + told.pop("features")
    assert {name: pytest.approx(size, rel=0.1, abs=30_000) for name, size in told.items()} == found
