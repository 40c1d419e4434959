"""A training's spec: what older code wrote is read, what newer code wrote is told apart, and nothing is lost."""

from typing import Any

import pytest

from app.jobs.states import FailureReason
from app.trainings.schemas import TrainRequest
from app.trainings.spec import TrainSpec
from app.vision.settings.config import TrainConfig
from worker.child.parent import JobFailure, read_spec

OLDEST = {  # of the first release: no pooling, no resources, no lineage
    **{"model_name": "pets", "backbone": "resnet18-tiny64", "train": "head", "last_stages": 1, "head": {"hidden": []}},
    **{"epochs": 40, "batch_size": 32, "optimizer": "adamw", "learning_rate": 0.002, "schedule": "cosine"},
    **{"weight_decay": 1.0, "augmentation": "none", "input_size": 64, "seed": 0},
}


def test_what_older_code_wrote_is_read_and_not_added_to() -> None:
    spec = read_spec(TrainSpec, OLDEST)
    assert (spec.resources.processes, spec.resources.machines, spec.head.pooling) == (1, 1, "avg")
    assert spec.model_dump(mode="json", exclude_unset=True) == OLDEST


def test_what_newer_code_wrote_is_kept_apart() -> None:
    spec = read_spec(TrainSpec, OLDEST | {"teacher": "big", "resources": {"processes": 2, "nodes": 3}})
    assert (spec.model_extra, spec.resources.processes) == ({"teacher": "big"}, 2)


@pytest.mark.parametrize(
    ("field", "value"), [("epochs", "many"), ("optimizer", "lion"), ("backbone", None), ("resources", {"processes": 0})]
)
def test_what_cannot_be_meant_is_named(field: str, value: Any) -> None:
    with pytest.raises(JobFailure) as failed:
        read_spec(TrainSpec, OLDEST | {field: value})
    failure = failed.value.body["failure"]
    assert failure["reason"] == FailureReason.invalid_config
    assert f"spec.{field}" in failure["detail"]
    assert "Update the worker" in failure["hint"]


def test_a_spec_has_every_field_of_the_configuration_as_it_stands_there() -> None:
    config = TrainRequest.model_validate({"dataset": "pets", "mixup": 0.2}).config("resnet18-tiny64").resolve()
    filled = {name: value for name, value in config.to_dict().items() if value is not None}
    spec = TrainSpec.model_validate({"model_name": "pets", **filled})
    assert not spec.model_extra
    kept = spec.model_dump(mode="json", exclude_unset=True)
    assert TrainConfig.from_dict({name: kept[name] for name in filled}) == config
