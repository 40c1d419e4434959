"""What a caller may ask of a training, and how it reads in the training library's words."""

import dataclasses
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import ValidationError

from app.jobs.schemas import JobOut
from app.trainings.schemas import Head, LastStages, TrainRequest
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.settings.presets import Transform


def refused(**fields: Any) -> dict[str, str]:
    """Where a request is refused, and why."""
    with pytest.raises(ValidationError) as caught:
        TrainRequest.model_validate({"dataset": "pets", **fields})
    return {".".join(map(str, one["loc"])): one["msg"] for one in caught.value.errors()}


def test_only_the_dataset_is_required() -> None:
    assert TrainRequest(dataset="pets").backbone == "auto"
    with pytest.raises(ValidationError, match="Field required"):
        TrainRequest.model_validate({})


def test_the_defaults_are_those_of_the_training_library() -> None:
    assert TrainRequest(dataset="pets").config("resnet18") == TrainConfig("resnet18")


def test_the_examples_of_the_documentation_are_good() -> None:
    for example in TrainRequest.model_config["json_schema_extra"]["examples"]:  # type: ignore[index,call-overload]
        TrainRequest.model_validate(example).config(example.get("backbone", "resnet18")).resolve()


# A value for each field of the training library's configuration that is not its default, and how a caller asks for it.
ASKED: dict[str, tuple[Any, dict[str, Any]]] = {
    "backbone": ("resnet34", {}),
    "train": ("all", {"train": "all"}),
    "last_stages": (3, {"train": {"last_stages": 3}}),
    "head": (HeadConfig((64, 32), 0.25, "gem"), {"head": {"hidden": [64, 32], "dropout": 0.25, "pooling": "gem"}}),
    "epochs": (7, {"epochs": 7}),
    "batch_size": (16, {"batch_size": 16}),
    "optimizer": ("sgd", {"optimizer": "sgd"}),
    "learning_rate": (0.5, {"learning_rate": 0.5}),
    "schedule": ("step", {"schedule": "step"}),
    "weight_decay": (0.125, {"weight_decay": 0.125}),
    "augmentation": ("strong", {"augmentation": "strong"}),
    "input_size": (96, {"input_size": 96}),
    "seed": (12, {"seed": 12}),
    "warmup": (0.125, {"warmup": 0.125}),
    "layer_decay": (0.5, {"layer_decay": 0.5}),
    "unfreeze_every": (2, {"unfreeze_every": 2}),
    "accumulate": (4, {"accumulate": 4}),
    "clip_norm": (1.5, {"clip_norm": 1.5}),
    "l1": (0.25, {"l1": 0.25}),
    "label_smoothing": (0.1, {"label_smoothing": 0.1}),
    "patience": (5, {"patience": 5}),
    "ema": (0.99, {"ema": 0.99}),
    "imbalance": ("sampling", {"imbalance": "sampling"}),
    "focal_gamma": (2.0, {"focal_gamma": 2}),
    "mixup": (0.2, {"mixup": 0.2}),
    "cutmix": (1.0, {"cutmix": 1}),
    "precision": ("float32", {"precision": "float32"}),
    "compile": (True, {"compile": True}),
    "on_out_of_memory": ("shrink", {"on_out_of_memory": "shrink"}),
    "views": (2, {"views": 2}),
    "loader_workers": (2, {"loader_workers": 2}),
    "target_precision": (0.75, {"target_precision": 0.75}),
    "find_rate": (True, {"find_rate": True}),
}


@pytest.mark.parametrize(
    "field",
    sorted(
        # A caller names a base model; the file's hash is the service's to find.
        {field.name for field in dataclasses.fields(TrainConfig)} - {"base_model"}
    ),
)
def test_a_caller_can_set_every_field_of_the_training_library(field: str) -> None:
    value, asked = ASKED[field]
    config = TrainRequest.model_validate({"dataset": "pets", **asked}).config("resnet34")
    assert getattr(config, field) == value != getattr(TrainConfig("resnet18"), field)


def test_no_field_of_a_request_is_lost_on_the_way() -> None:
    elsewhere = {"dataset", "model_name", "backbone", "base_model", "resources"}
    elsewhere |= {"priority", "run_after", "max_attempts", "max_seconds"}
    assert set(TrainRequest.model_fields) - elsewhere == set(ASKED) - {"backbone", "last_stages"}
    together = {name: part for _, asked in ASKED.values() for name, part in asked.items()}
    config = TrainRequest.model_validate({"dataset": "pets", **together}).config("resnet34")
    assert config == TrainConfig(
        **{field: value for field, (value, _) in ASKED.items()} | {"train": "last_stages", "last_stages": 3}
    )


@pytest.mark.parametrize("name", ["optimizer", "schedule", "augmentation", "imbalance", "precision"])
def test_a_choice_has_the_options_of_the_training_library(name: str) -> None:
    def options(of: object) -> set[object]:
        hint = get_type_hints(of)[name]
        return {value for part in (hint, *get_args(hint)) for value in get_args(part) if isinstance(value, str)}

    assert options(TrainRequest) == options(TrainConfig) != set()


@pytest.mark.parametrize(
    "most",
    [
        {"epochs": 10_000},
        {"batch_size": 4096},
        {"learning_rate": 10},
        {"weight_decay": 100},
        {"input_size": 1024},
        {"seed": 2**32 - 1},
        {"head": {"hidden": [8192] * 4, "dropout": 0.95}},
        {"warmup": 0.5},
        {"layer_decay": 1.0},
        {"accumulate": 1024},
        {"clip_norm": 1000},
        {"l1": 1},
        {"label_smoothing": 0.9},
        {"patience": 10_000},
        {"ema": 0.9999},
        {"focal_gamma": 10},
        {"mixup": 10},
        {"views": 64},
        {"loader_workers": 64},
        {"target_precision": 0.5},
        {"target_precision": 0.9999},
    ],
)
def test_both_agree_on_the_most_that_is_allowed(most: dict[str, Any]) -> None:
    def more(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: more(inner) for key, inner in value.items()}
        return [*value, 1] if isinstance(value, list) else value + 1

    TrainRequest.model_validate({"dataset": "pets", **most}).config("resnet18").resolve()
    assert refused(**{key: more(value) for key, value in most.items()})


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"learning_rat": 0.1}, "learning_rat"),
        ({"head": {"units": 3}}, "head.units"),
        ({"learning_rate": -0.1}, "learning_rate"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"learning_rate": "fast"}, "learning_rate"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": "most"}, "batch_size"),
        ({"on_out_of_memory": "retry"}, "on_out_of_memory"),
        ({"target_precision": 0.4}, "target_precision"),
        ({"target_precision": 1}, "target_precision"),
        ({"target_precision": float("nan")}, "target_precision"),
        ({"resources": {"processes": 0}}, "resources.processes"),
        ({"resources": {"machines": 0}}, "resources.machines"),
        ({"resources": {"machines": 65}}, "resources.machines"),
        ({"resources": {"gpus": 2}}, "resources.gpus"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"augmentation": "wild"}, "augmentation"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"weight_decay": float("nan")}, "weight_decay"),
        ({"input_size": 31}, "input_size"),
        ({"seed": -1}, "seed"),
        ({"head": {"dropout": 1}}, "head.dropout"),
        ({"head": {"hidden": [0]}}, "head.hidden.0"),
        ({"head": {"hidden": [1] * 5}}, "head.hidden"),
        ({"model_name": ""}, "model_name"),
        ({"model_name": "x" * 101}, "model_name"),
        ({"model_name": "a\0b"}, "model_name"),
        ({"model_name": "a\nb"}, "model_name"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], where: str) -> None:
    assert list(refused(**fields)) == [where]


@pytest.mark.parametrize(
    ("train", "meant"),
    [
        ("head", ("head", 1)),
        ("all", ("all", 1)),
        ({"last_stages": 2}, ("last_stages", 2)),
        (LastStages(last_stages=4), ("last_stages", 4)),
    ],
)
def test_the_forms_of_train(train: Any, meant: tuple[str, int]) -> None:
    config = TrainRequest(dataset="pets", train=train).config("resnet18")
    assert (config.train, config.last_stages) == meant


@pytest.mark.parametrize(
    ("train", "says"),
    [
        ("everything", "'everything' is not known"),
        ("last_stages", "'last_stages' is not known"),
        (3, "3 is not known"),
        (None, "None is not known"),
        ([], "[] is not known"),
        ({}, "{} is not known"),
        ({"last_stages": 1, "more": 2}, "is not known"),
        ({"last_stages": 0}, "last_stages is 0; use a whole number from 1"),
        ({"last_stages": 1.5}, "last_stages is 1.5; use a whole number from 1"),
        ({"last_stages": True}, "last_stages is True; use a whole number from 1"),
        ({"last_stages": "2"}, "last_stages is '2'; use a whole number from 1"),
    ],
)
def test_another_form_of_train_is_refused_in_one_sentence(train: Any, says: str) -> None:
    ((where, message),) = refused(train=train).items()
    assert where == "train"
    assert says in message
    if "not known" in says:
        assert 'use "head", "all" or {"last_stages": n}' in message


def test_augmentation_may_be_a_list_of_transforms() -> None:
    asked = [{"name": "crop", "min_area": 0.6}, {"name": "flip"}]
    config = TrainRequest.model_validate({"dataset": "pets", "augmentation": asked}).config("resnet18")
    assert config.augmentation == (Transform("crop", {"min_area": 0.6}), Transform("flip"))
    assert config.resolve().to_dict()["augmentation"] == asked


@pytest.mark.parametrize(
    ("augmentation", "says"),
    [
        ([], 'an empty list; use "none"'),
        (["flip"], "'flip' is no transform; use one like {'name': 'flip'}"),
        ([{"name": "blur"}], "'blur' is not a transform; use one of crop, flip"),
        ([{"name": "flip", "degrees": 3}], "flip has no 'degrees'; it has probability"),
        ([{"name": "rotate", "degrees": 500}], "augmentation.rotate.degrees: 500 is not allowed; use a number from 0"),
        ([{"name": "rotate", "degrees": "far"}], "augmentation.rotate.degrees: 'far' is not allowed"),
        (7, "7 is not known; use one of 'none'"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused_in_one_sentence(augmentation: Any, says: str) -> None:
    ((where, message),) = refused(augmentation=augmentation).items()
    assert where == "augmentation"
    assert says in message


def test_one_request_does_not_change_the_next() -> None:
    TrainRequest(dataset="pets").head.hidden.append(1)
    assert TrainRequest(dataset="pets").head == Head() == Head(hidden=[], dropout=0.0)


def test_what_the_api_says_of_a_job_leaves_its_fence_out() -> None:
    assert not {"epoch", "lease_expires_at", "event_seq", "workspace_id"} & set(JobOut.model_fields)
