"""Defaults, checks and the JSON form of a training configuration."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from app.vision.errors import InvalidConfig
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.settings.presets import Transform


@pytest.mark.parametrize("train", ["head", "last_stages", "all"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_resolve_leaves_no_gap_and_keeps_what_was_said(train: Any, optimizer: Any) -> None:
    config = TrainConfig("resnet50", train=train, optimizer=optimizer, epochs=7).resolve()
    left_out = [name for name, value in dataclasses.asdict(config).items() if value is None]
    assert left_out == ["base_model", "target_precision"]
    assert config.epochs == 7
    assert config.input_size == 224
    assert config.resolve() == config


def test_defaults_depend_on_what_learns() -> None:
    head, full = TrainConfig("resnet18").resolve(), TrainConfig("resnet18", train="all").resolve()
    assert head.augmentation == "none"
    assert full.augmentation != "none"
    assert head.learning_rate is not None
    assert full.learning_rate is not None
    assert head.learning_rate > full.learning_rate


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"backbone": "resnet19"}, "backbone"),
        ({"train": "everything"}, "train"),
        ({"last_stages": 6}, "last_stages"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"schedule": "linear"}, "schedule"),
        ({"weight_decay": -1e-4}, "weight_decay"),
        ({"augmentation": "medium"}, "augmentation"),
        ({"augmentation": ()}, "augmentation"),
        ({"augmentation": (Transform("blur"),)}, "augmentation"),
        ({"augmentation": (Transform("flip"), Transform("flip"))}, "augmentation"),
        ({"augmentation": (Transform("crop", {"area": 0.5}),)}, "augmentation"),
        ({"augmentation": (Transform("crop", {"min_area": 0.0}),)}, "augmentation.crop.min_area"),
        ({"input_size": 16}, "input_size"),
        ({"seed": -1}, "seed"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"l1": -0.1}, "l1"),
        ({"clip_norm": float("inf")}, "clip_norm"),
        ({"accumulate": 0}, "accumulate"),
        ({"patience": -1}, "patience"),
        ({"ema": 1.0}, "ema"),
        ({"warmup": 0.6}, "warmup"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"unfreeze_every": 1.5}, "unfreeze_every"),
        ({"imbalance": "smote"}, "imbalance"),
        ({"focal_gamma": -1}, "focal_gamma"),
        ({"mixup": "much"}, "mixup"),
        ({"cutmix": True}, "cutmix"),
        ({"views": 0}, "views"),
        ({"loader_workers": -1}, "loader_workers"),
        ({"target_precision": 0.49}, "target_precision"),
        ({"target_precision": 1.0}, "target_precision"),
        ({"precision": "float64"}, "precision"),
        ({"head": HeadConfig(pooling="min")}, "head.pooling"),  # type: ignore[arg-type]
        ({"head": HeadConfig(dropout=1.0)}, "head.dropout"),
        ({"head": HeadConfig(hidden=(0,))}, "head.hidden"),
        ({"head": HeadConfig(hidden=(8,) * 5)}, "head.hidden"),
        ({"head": HeadConfig(hidden=8)}, "head.hidden"),  # type: ignore[arg-type]
        ({"backbone": 18}, "backbone"),
        ({"backbone": None}, "backbone"),
        ({"base_model": 1}, "base_model"),
        ({"base_model": "resnet"}, "base_model"),
        ({"find_rate": "yes"}, "find_rate"),
        ({"compile": 1}, "compile"),
        ({"warmup": None}, "warmup"),  # None is for fields with a default that depends on others
        ({"augmentation": (1,)}, "augmentation"),
        ({"on_out_of_memory": "wait"}, "on_out_of_memory"),
    ],
)
def test_a_bad_field_is_named_with_its_value(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        TrainConfig(**({"backbone": "resnet18"} | fields)).resolve()
    assert caught.value.field == field
    assert str(caught.value).startswith(field + ": ")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"find_rate": True, "learning_rate": 0.1}, "find_rate: and learning_rate 0.1: leave one of them out"),
        ({"find_rate": True, "batch_size": "auto"}, "batch_size: 'auto' with find_rate, .*; name a number"),
        ({"cutmix": 1.0}, "cutmix: 1.0 with a frozen trunk, .*; use mixup, or let stages learn"),
        ({"unfreeze_every": 2}, 'unfreeze_every: 2 with train "head", .*; use 0, or let'),
        ({"unfreeze_every": 3, "train": "all"}, "3: the last of 5 stages would thaw in epoch 16 of 12; use at most 2"),
    ],
)
def test_fields_that_contradict_each_other_are_refused_with_a_remedy(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidConfig, match=says):
        TrainConfig(**({"backbone": "resnet18"} | fields)).resolve()


def test_gradual_unfreezing_fits_when_its_last_stage_still_learns() -> None:
    assert TrainConfig("resnet18", train="all", unfreeze_every=2).resolve().epochs == 12
    TrainConfig("resnet18", train="last_stages", last_stages=2, unfreeze_every=5).resolve()


def test_what_older_jobs_stored_still_loads() -> None:
    stored = {"backbone": "resnet18", "train": "head", "last_stages": 1, "head": {"hidden": [], "dropout": 0.0}}
    stored |= {"epochs": 40, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.002, "schedule": "cosine"}
    stored |= {"weight_decay": 1.0, "augmentation": "none", "input_size": 224, "seed": 0}
    assert TrainConfig.from_dict(stored) == TrainConfig("resnet18").resolve()


def test_json_and_back() -> None:
    config = TrainConfig("vgg11", train="last_stages", last_stages=2, head=HeadConfig((64, 32), 0.25), seed=9)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    steps = TrainConfig("vgg11", augmentation=(Transform("rotate", {"degrees": 30}), Transform("flip"))).resolve()
    assert TrainConfig.from_dict(json.loads(json.dumps(steps.to_dict()))) == steps
    assert steps.to_dict()["augmentation"] == [{"name": "rotate", "degrees": 30}, {"name": "flip"}]
    with pytest.raises(InvalidConfig, match="'flip' is no transform; use one like"):
        TrainConfig.from_dict({"backbone": "vgg11", "augmentation": ["flip"]})
    assert TrainConfig.from_dict({"backbone": "vgg11"}) == TrainConfig("vgg11")
    with pytest.raises(InvalidConfig, match="lr: no such field"):
        TrainConfig.from_dict({"backbone": "vgg11", "lr": 1})


def test_the_light_modules_do_not_import_torch() -> None:
    modules = (
        *("errors", "settings.config", "settings.presets", "images.preprocessing"),
        *("backbones.catalogue", "backbones.weights"),
    )
    script = f"import sys, {', '.join('app.vision.' + name for name in modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
