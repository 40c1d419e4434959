"""`POST /v1/jobs:plan` foretells a job, refuses what `POST /v1/jobs` refuses, and leaves nothing behind."""

from typing import Any, cast

import pytest
from sqlalchemy import func, select

from app.core.clock import DatabaseTime
from app.core.database import Base
from app.jobs import workers
from app.jobs.orm import Job
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES
from tests.support.images import folder_zip
from tests.support.services import Service
from tests.support.stages import TINY


@pytest.fixture
def with_pets(api: Service) -> Service:
    api.dataset("pets", folder_zip({"ants": 8, "bees": 8}, split={"train": 11, "val": 4}))
    return api


def plan(api: Service, **fields: Any) -> dict[str, Any]:
    answer = api.read.post("/v1/jobs:plan", json={"dataset": "pets", **fields})
    assert answer.status_code == 200, answer.text
    return cast("dict[str, Any]", answer.json())


def rows(api: Service) -> dict[str, int]:
    with api.stage.database.reading() as session:
        return {
            table.name: session.execute(select(func.count()).select_from(table)).scalar_one()
            for table in Base.metadata.sorted_tables
        }


def worker_here(api: Service, host: str = "here", free: int = 10**9) -> None:
    devices = [{"name": "cpu", "memory_total": 2 * free, "memory_free": free}]
    with api.stage.database.writing() as session:
        workers.register(
            session, name=f"{host}:1", host=host, version="0", devices=devices, train_slots=1, lost_after=600
        )


def test_a_plan_says_what_the_job_then_is_and_writes_nothing(with_pets: Service) -> None:
    before = rows(with_pets)
    asked = {"train": {"last_stages": 1}, "head": {"hidden": [16]}, "epochs": 3, "model_name": "mine"}
    planned = plan(with_pets, **asked)
    assert rows(with_pets) == before
    job = with_pets.write.post("/v1/jobs", json={"dataset": "pets", **asked}).json()
    assert planned["spec"] == job["spec"]
    assert planned["images"]["version_id"] == job["dataset_version_id"]
    assert planned["images"]["total"] == {"train": 22, "val": 8}
    assert planned["images"]["counts"]["val"] == {"ants": 4, "bees": 4}
    network = planned["network"]
    assert network["trained"] == ["head", "layer4"]
    head = 512 * 16 + 16 + 16 * 2 + 2
    assert network["trainable_parameters"] == 8_393_728 + head
    assert network["parameters"] == 11_176_512 + head
    assert (network["classes"], network["input_size"]) == (list(CLASSES), 96)


@pytest.mark.parametrize(
    "body",
    [
        {"dataset": "nothing"},
        {"dataset": "pets", "learning_rate": -1},
        {"dataset": "pets", "backbone": "resnet18-tiny46"},
        {"dataset": "pets", "backbone": "resnet50"},
        {"dataset": "pets", "base_model": "none"},
        {"dataset": "pets", "cutmix": 1.0},
        {"dataset": "pets", "batch_size": 2, "resources": {"processes": 3}},
        {"dataset": "pets", "batch_size": 5, "resources": {"processes": 3, "machines": 2}},
        {"dataset": "pets", "resources": {"machines": 2}},
        {"dataset": "unread"},
        {},
    ],
)
def test_what_would_be_refused_is_refused_in_the_same_words(with_pets: Service, body: dict[str, Any]) -> None:
    with_pets.stage.upload(with_pets.workspace, "unread")
    planned = with_pets.write.post("/v1/jobs:plan", json=body)
    refused = with_pets.write.post("/v1/jobs", json=body)
    assert refused.status_code in (409, 422)
    assert planned.status_code == refused.status_code
    assert planned.json() | {"instance": "/v1/jobs"} == refused.json()


def test_findings_that_would_spoil_the_result(with_pets: Service) -> None:
    findings = {one["code"]: one for one in plan(with_pets)["findings"]}
    assert findings.keys() == {"few_val_images"}  # eleven to learn from are enough
    assert findings["few_val_images"]["severity"] == "warning"
    assert len(findings["few_val_images"]["images"]) == 8
    images = with_pets.read.get("/v1/datasets/pets/images?split=train&label=ants").json()["items"]
    moved, relabelled = images[0]["sha256"], images[1]["sha256"]
    with_pets.write.patch(f"/v1/datasets/pets/images/{moved}", json={"split": "val"})
    with_pets.write.patch(f"/v1/datasets/pets/images/{relabelled}", json={"label": "bees"})
    codes = {one["code"]: one for one in plan(with_pets)["findings"]}
    assert codes["not_in_version"]["images"] == sorted([moved, relabelled])
    assert with_pets.write.post("/v1/datasets/pets/versions").status_code == 201
    after = plan(with_pets)
    assert "not_in_version" not in {one["code"] for one in after["findings"]}
    assert "few_train_images" in {one["code"] for one in after["findings"]}
    assert (after["images"]["version"], after["images"]["counts"]["train"]) == (2, {"ants": 9, "bees": 12})


def test_the_queue_limits_and_the_turn(make_api: Any) -> None:
    api = make_api(max_queued_jobs=2)
    api.dataset("pets")
    assert (plan(api)["waiting_for"], plan(api)["jobs_ahead"]) == ("worker", 0)
    worker_here(api)
    for _ in range(2):
        assert plan(api)["refusal"] is None
        api.training()
    planned = plan(api)
    refused = api.write.post("/v1/jobs", json={"dataset": "pets"})
    assert refused.status_code == 429
    assert planned["refusal"] == {name: refused.json()[name] for name in ("code", "detail")}
    assert (planned["limits"]["queued"], planned["limits"]["max_queued"], planned["limits"]["running"]) == (2, 2, 0)
    assert planned["limits"]["stored_bytes"] > 0
    assert (planned["waiting_for"], planned["jobs_ahead"]) == ("slot", 2)
    assert plan(api, priority=1)["jobs_ahead"] == 0
    later = plan(api, run_after="2100-01-01T00:00:00Z")
    assert (later["waiting_for"], later["jobs_ahead"]) == ("run_after", None)


def test_time_is_told_from_like_trainings_on_living_workers_alone(with_pets: Service, trained: FitResult) -> None:
    assert plan(with_pets, **TINY)["seconds"]["value"] is None
    with_pets.training()
    job = with_pets.stage.claim("train")
    assert job is not None
    with_pets.stage.finish(job, trained, CLASSES)
    with with_pets.stage.database.writing() as session:
        row = session.get_one(Job, job.id)
        row.ran_seconds, row.worker = 6.0, "here:1"
        assert session.execute(select(DatabaseTime())).scalar_one() is not None
    assert plan(with_pets, **TINY)["seconds"]["value"] is None  # its worker is gone
    worker_here(with_pets)
    known = plan(with_pets, **TINY)["seconds"]
    assert (known["value"], known["unit"]) == (6.0, "seconds")
    assert "earlier trainings (1)" in known["basis"]
    views = plan(with_pets, **TINY, augmentation="standard")["seconds"]["value"]
    assert views == pytest.approx(6.0 * (22 * 4 + 8) / (22 + 8), abs=0.1)
    for other in ({"input_size": 64}, {"train": "all"}):
        unknown = plan(with_pets, **TINY | other)["seconds"]
        assert unknown["value"] is None
        assert "No training with this backbone" in unknown["basis"]


def test_memory_and_disk_say_what_they_rest_on(with_pets: Service) -> None:
    worker_here(with_pets, free=123_456_789)
    planned = plan(with_pets, train="all")
    for name in ("memory", "disk"):
        assert planned[name]["value"] == sum(planned[name]["parts"].values())
        assert isinstance(planned[name]["value"], int)  # bytes have no fractions
        assert planned[name]["unit"] == "bytes"
    assert "123456789 bytes free" in planned["memory"]["basis"]
    assert planned["memory"]["value"] > plan(with_pets, train="all", batch_size=8)["memory"]["value"]
    unknown = plan(with_pets, batch_size="auto")["memory"]
    assert unknown["value"] is None
    assert "batch_size is auto" in unknown["basis"]
