"""Trainings over HTTP: submitted, watched, streamed, cancelled; with a real worker where one has to run."""

import hashlib
import io
import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from app.api import submission
from app.auth.schemas import Scope
from app.core.errors import Unavailable
from app.jobs import queue
from app.jobs.queue import Claim
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES, is_uuid, problem
from tests.support.services import OpenService, Service
from tests.support.stages import TINY


def events(response: Any) -> Iterator[dict[str, Any]]:
    """Server-sent events as they come: event, data and, where it has one, id."""
    current: dict[str, Any] = {}
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        if line == "" and current:
            yield current
            current = {}
        elif name == "data":
            current["data"] = json.loads(value)
        elif name in ("event", "id"):
            current[name] = value


def streamed(api: Service, job: str, last: str | None = None) -> list[dict[str, Any]]:
    """The whole stream, to its end."""
    with api.read.stream(f"/v1/jobs/{job}/events", {"Last-Event-ID": last} if last else {}) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(events(response))


@pytest.fixture
def with_pets(api: Service) -> Service:
    api.dataset("pets")
    return api


def test_a_training_is_accepted_with_every_default_filled_in(with_pets: Service) -> None:
    response = with_pets.write.post("/v1/jobs", json={"dataset": "pets"})
    assert response.status_code == 202
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert is_uuid(job["id"])
    assert (job["kind"], job["state"], job["attempt"], job["progress"]) == ("train", "queued", 0, 0)
    assert (job["result"], job["failure"], job["started_at"], job["finished_at"]) == (None, None, None, None)
    spec = job["spec"]
    assert (spec["model_name"], spec["backbone"], spec["train"]) == ("pets", "resnet18-tiny64", "head")
    assert None not in spec.values()
    assert job["dataset_version_id"] == with_pets.read.get("/v1/datasets/pets").json()["version"]["id"]
    assert with_pets.read.get(response.headers["location"]).json() == job


def test_a_database_that_goes_away_after_the_commit_makes_no_accepted_job_look_refused(
    with_pets: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise Unavailable("The database does not answer. Nothing was changed.", code="database_unavailable")

    monkeypatch.setattr(submission, "job_view", away)
    response = with_pets.write.post("/v1/jobs", json={"dataset": "pets"})
    assert response.status_code == 202
    assert [job["id"] for job in with_pets.read.get("/v1/jobs").json()["items"]] == [response.json()["id"]]
    # Under a key it is one transaction: there is no job, and the same call may be sent again.
    keyed = {"Idempotency-Key": "again"}
    assert with_pets.write.post("/v1/jobs", json={"dataset": "pets"}, headers=keyed).status_code == 503
    assert len(with_pets.read.get("/v1/jobs").json()["items"]) == 1


def test_what_is_asked_for_is_what_is_planned(with_pets: Service) -> None:
    asked = {
        "model_name": "best",
        "backbone": "resnet18-tiny64",
        "train": {"last_stages": 2},
        "head": {"hidden": [16, 8], "dropout": 0.25, "pooling": "max"},
        "epochs": 3,
        "batch_size": 7,
        "optimizer": "sgd",
        "learning_rate": 0.01,
        "schedule": "step",
        "weight_decay": 0.001,
        "augmentation": "strong",
        "input_size": 48,
        "seed": 11,
        "warmup": 0.1,
        "layer_decay": 0.9,
        "unfreeze_every": 1,
        "accumulate": 2,
        "clip_norm": 1.0,
        "l1": 0.001,
        "label_smoothing": 0.1,
        "patience": 2,
        "ema": 0.9,
        "imbalance": "sampling",
        "focal_gamma": 1.0,
        "mixup": 0.2,
        "cutmix": 0.5,
        "precision": "float32",
        "compile": True,
        "on_out_of_memory": "shrink",
        "resources": {"processes": 2, "machines": 1},
        "views": 2,
        "loader_workers": 1,
        "target_precision": 0.9,
    }
    spec = with_pets.write.post("/v1/jobs", json={"dataset": "pets", **asked}).json()["spec"]
    assert spec == asked | {"train": "last_stages", "last_stages": 2, "find_rate": False}


def test_when_and_how_long_it_may_run_is_the_callers_to_say(with_pets: Service) -> None:
    asked = {"priority": 7, "run_after": "2999-01-31T22:00:00+02:00", "max_attempts": 2, "max_seconds": 90.5}
    job = with_pets.write.post("/v1/jobs", json={"dataset": "pets", **asked}).json()
    assert {name: job[name] for name in asked} == asked | {"run_after": "2999-01-31T20:00:00Z"}
    assert (job["waiting_for"], job["queue_position"], job["wait_seconds"]) == ("run_after", None, None)
    assert with_pets.stage.claim("train") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", 101),
        ("priority", -101),
        ("priority", 0.5),
        ("run_after", "2030-01-31T22:00:00"),
        ("run_after", "tomorrow"),
        ("run_after", "9999-12-31T23:59:59-05:00"),
        ("max_attempts", 0),
        ("max_attempts", 21),
        ("max_seconds", 0),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(with_pets: Service, field: str, value: Any) -> None:
    answer = with_pets.write.post("/v1/jobs", json={"dataset": "pets", field: value})
    problem(answer, 422, "invalid", field)


def test_several_machines_need_a_database_that_they_can_reach(with_pets: Service) -> None:
    answer = with_pets.write.post("/v1/jobs", json={"dataset": "pets", "resources": {"machines": 2}})
    body = problem(answer, 422, "invalid", "resources.machines", remedy="PostgreSQL")
    assert body["detail"].startswith("2: ")


def test_a_queued_job_knows_its_place_and_what_it_waits_for(with_pets: Service) -> None:
    made = [with_pets.training(), with_pets.training(priority=1)]
    assert [item["queue_position"] for item in with_pets.read.get("/v1/jobs").json()["items"]] == [1, 2]
    job = with_pets.read.get(f"/v1/jobs/{made[0]}").json()
    assert (job["waiting_for"], job["queue_position"], job["wait_seconds"]) == ("worker", 2, None)
    with_pets.stage.claim("train")
    job = with_pets.read.get(f"/v1/jobs/{made[1]}").json()
    assert (job["state"], job["waiting_for"], job["queue_position"]) == ("running", None, None)


def test_no_more_jobs_wait_than_may(make_api: Any) -> None:
    api = make_api(max_queued_jobs=2)
    api.dataset("pets")
    asked = {"dataset": "pets"}
    made = [api.write.post("/v1/jobs", json=asked).json()["id"] for _ in range(2)]
    refused = api.write.post("/v1/jobs", json=asked, headers={"Idempotency-Key": "k"})
    problem(refused, 429, "queue_full", remedy="cancel")
    assert int(refused.headers["retry-after"]) > 0
    other = api.caller(api.stage.workspace(), Scope.write)
    problem(other.post("/v1/jobs", json=asked), 422, "unknown_dataset")  # its own queue is empty
    api.write.post(f"/v1/jobs/{made[0]}:cancel")
    assert api.write.post("/v1/jobs", json=asked, headers={"Idempotency-Key": "k"}).status_code == 202


def test_jobs_are_listed_newest_first_by_state_kind_and_dataset(with_pets: Service) -> None:
    cars = with_pets.dataset("cars")
    made = [with_pets.training(name) for name in ("pets", "cars", "pets")]
    with_pets.write.post(f"/v1/jobs/{made[2]}:cancel")

    def ids(query: str) -> list[str]:
        return [item["id"] for item in with_pets.read.get(f"/v1/jobs{query}").json()["items"]]

    assert ids("") == made[::-1]
    assert ids("?state=queued") == [made[1], made[0]]
    assert ids("?state=cancelled") == [made[2]]
    assert ids(f"?dataset_id={cars}") == [made[1]]
    assert {item["kind"] for item in with_pets.read.get("/v1/jobs?kind=ingest").json()["items"]} == {"ingest"}
    first = with_pets.read.get("/v1/jobs?limit=2").json()
    second = with_pets.read.get("/v1/jobs", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [item["id"] for item in first["items"] + second["items"]] == made[::-1]
    assert second["next_cursor"] is None


def test_a_waiting_job_is_cancelled_at_once_and_again_without_effect(with_pets: Service) -> None:
    job = with_pets.training()
    cancelled = with_pets.write.post(f"/v1/jobs/{job}:cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert cancelled.json()["finished_at"] is not None
    assert with_pets.write.post(f"/v1/jobs/{job}:cancel").json() == cancelled.json()
    assert with_pets.stage.claim("train") is None


def test_a_running_job_is_cancelling_until_its_worker_lets_go(with_pets: Service) -> None:
    job = with_pets.training()
    claimed = with_pets.stage.claim("train")
    assert claimed is not None
    assert with_pets.write.post(f"/v1/jobs/{job}:cancel").json()["state"] == "cancelling"
    assert with_pets.write.post(f"/v1/jobs/{job}:cancel").json()["state"] == "cancelling"
    with with_pets.stage.database.writing() as session:
        queue.cancelled(session, Claim(claimed.id, claimed.epoch))
    assert with_pets.read.get(f"/v1/jobs/{job}").json()["state"] == "cancelled"


def test_a_job_that_has_ended_cannot_be_cancelled(api: Service, model_id: str) -> None:
    job = api.read.get(f"/v1/models/{model_id}").json()["job_id"]
    body = problem(api.write.post(f"/v1/jobs/{job}:cancel"), 409, "job_ended", remedy="nothing to cancel")
    assert "succeeded" in body["detail"]


def test_wait_answers_when_the_job_ends(with_pets: Service) -> None:
    job = with_pets.training()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(with_pets.read.get, f"/v1/jobs/{job}?wait=60")
        with_pets.write.post(f"/v1/jobs/{job}:cancel")
        assert waiting.result(60).json()["state"] == "cancelled"


def test_a_job_that_has_not_begun_has_no_metrics(with_pets: Service) -> None:
    assert with_pets.read.get(f"/v1/jobs/{with_pets.training()}/metrics").json() == {"items": [], "next_cursor": None}


def test_what_diverged_says_where_its_checkpoint_is_and_hands_it_out(with_pets: Service) -> None:
    stage, job = with_pets.stage, with_pets.training()
    refused = with_pets.read.get(f"/v1/jobs/{job}/checkpoint")
    assert (refused.status_code, refused.json()["code"]) == (404, "no_checkpoint")
    data = os.urandom(3 << 20)
    claimed = stage.claim("train")
    assert claimed is not None
    held = Claim(claimed.id, claimed.epoch)
    with stage.database.writing() as session:
        queue.record_checkpoint(session, held, stage.store.put_bytes(data), 4, 7, True)
        queue.fail(session, held, {"reason": "diverged", "detail": "The loss …", "hint": None})
    failure = with_pets.read.get(f"/v1/jobs/{job}").json()["failure"]
    digest = hashlib.sha256(data).hexdigest()
    assert failure["checkpoint"] == {"epoch": 4, "step": 7, "sha256": digest, "size": len(data)}
    answer = with_pets.read.get(f"/v1/jobs/{job}/checkpoint")
    assert answer.content == data
    assert answer.headers["content-disposition"] == f'attachment; filename="{job}-epoch-4-step-7.safetensors"'


def test_a_stream_goes_on_where_it_broke_off(with_pets: Service, trained: FitResult) -> None:
    """A client that comes and goes: it misses nothing and hears nothing twice."""
    job_id = with_pets.training()
    heard = []
    with with_pets.read.stream(f"/v1/jobs/{job_id}/events") as response:
        heard.append(next(events(response)))  # and then the connection breaks
    job = with_pets.stage.claim("train")
    assert job is not None
    held = Claim(job.id, job.epoch)
    with with_pets.stage.database.writing() as session:
        queue.record_epoch(session, held, trained.history[0])
    with with_pets.read.stream(f"/v1/jobs/{job_id}/events", {"Last-Event-ID": heard[-1]["id"]}) as response:
        stream = events(response)
        heard += [next(stream), next(stream)]
        # While it listens, more comes.
        with with_pets.stage.database.writing() as session:
            queue.record_epoch(session, held, trained.history[1])
        heard.append(next(one for one in stream if "id" in one))
    with_pets.stage.finish(job, trained, CLASSES)
    heard += streamed(with_pets, job_id, heard[-1]["id"])
    assert [one["id"] for one in heard] == ["1", "2", "3", "4", "5"]
    assert [one["event"] for one in heard] == ["state", "state", "epoch", "epoch", "state"]
    assert [one["data"].get("state") for one in heard if one["event"] == "state"] == ["queued", "running", "succeeded"]
    assert streamed(with_pets, job_id) == heard
    assert streamed(with_pets, job_id, "3") == heard[3:]
    assert streamed(with_pets, job_id, "5") == []


def test_a_silent_stream_says_that_it_lives(make_api: OpenService) -> None:
    with_pets = make_api(stream_silence_seconds=0)
    with_pets.dataset()
    job_id = with_pets.training()
    with with_pets.read.stream(f"/v1/jobs/{job_id}/events") as response:
        assert response.headers["cache-control"] == "no-cache"
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": still here"
        assert with_pets.write.post(f"/v1/jobs/{job_id}:cancel").json()["state"] == "cancelled"
        assert [line for line in lines if line.startswith("id")] == ["id: 2"]


def test_a_stream_of_many_events_is_complete(with_pets: Service, trained: FitResult) -> None:
    job_id = with_pets.training()
    job = with_pets.stage.claim("train")
    assert job is not None
    with with_pets.stage.database.writing() as session:
        for number in range(1200):
            queue.record_epoch(session, Claim(job.id, job.epoch), trained.history[0] | {"epoch": number + 1})
    with_pets.stage.finish(job, trained, CLASSES)
    assert [one["id"] for one in streamed(with_pets, job_id)] == [str(number) for number in range(1, 1204)]


@pytest.mark.parametrize("last", ["x", "-1", "1.5"])
def test_a_last_event_that_is_no_number_is_refused(with_pets: Service, last: str) -> None:
    response = with_pets.read.get(f"/v1/jobs/{with_pets.training()}/events", headers={"Last-Event-ID": last})
    problem(response, 422, "invalid", "last-event-id")


@pytest.fixture(scope="session")
def finished(worked: Any) -> tuple[Service, str, list[dict[str, Any]]]:
    """A training by a real worker, and what its stream said from before it began."""
    api: Service = worked()
    from tests.support.images import folder_zip

    archive = folder_zip({"ants": 0, "bees": 0}, {"train": 8, "val": 4})
    made = api.write.post("/v1/datasets?name=pets", content=archive).json()
    assert api.read.get(f"/v1/datasets/{made['id']}?wait=60").json()["state"] == "ready"
    job = api.write.post("/v1/jobs", json={"dataset": "pets", **TINY}).json()["id"]
    return api, job, streamed(api, job)


def test_a_worker_trains_and_the_stream_tells_all_of_it(finished: tuple[Service, str, list[dict[str, Any]]]) -> None:
    api, job_id, heard = finished
    job = api.read.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["progress"], job["attempt"], job["failure"]) == ("succeeded", 1, 1, None)
    assert job["worker"]
    states = [one["data"] for one in heard if one["event"] == "state"]
    assert [one["state"] for one in states] == ["queued", "running", "succeeded"]
    assert states[-1]["result"] == job["result"]
    assert [one["data"]["epoch"] for one in heard if one["event"] == "epoch"] == [1, 2]
    numbered = [int(one["id"]) for one in heard if "id" in one]
    assert numbered == list(range(1, 6))
    assert heard[-1]["data"]["state"] == "succeeded"
    fractions = [one["data"]["progress"] for one in heard if one["event"] == "progress"]
    assert fractions == sorted(fractions)
    assert all("id" not in one for one in heard if one["event"] == "progress")


def test_a_worker_trains_and_its_metrics_are_kept(finished: tuple[Service, str, list[dict[str, Any]]]) -> None:
    api, job_id, heard = finished
    metrics = api.read.get(f"/v1/jobs/{job_id}/metrics").json()
    assert metrics["next_cursor"] is None
    assert metrics["items"] == [one["data"] for one in heard if one["event"] == "epoch"]
    for number, epoch in enumerate(metrics["items"], start=1):
        assert (epoch["epoch"], epoch["epochs"]) == (number, 2)
        assert epoch["train_loss"] > 0
        assert epoch["val_loss"] > 0
        assert all(0 <= epoch[name] <= 1 for name in ("train_accuracy", "val_accuracy", "val_macro_f1"))


def test_a_worker_trains_and_its_report_is_complete(finished: tuple[Service, str, list[dict[str, Any]]]) -> None:
    api, job_id, _ = finished
    result = api.read.get(f"/v1/jobs/{job_id}").json()["result"]
    report = api.read.get(f"/v1/models/{result['model_id']}/report").json()
    assert report["best_epoch"] == result["best_epoch"]
    assert report["epochs"] == api.read.get(f"/v1/jobs/{job_id}/metrics").json()["items"]
    assert [one["name"] for one in report["pictures"]] == [
        "confusion-val.png",
        "coverage-val.png",
        "curves.png",
        "reliability-val.png",
    ]
    for one in report["pictures"]:
        data = api.read.get(one["href"]).content
        assert len(data) == one["size"]
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 400
    (table,) = report["evaluations"]
    rows = [json.loads(line) for line in api.read.get(table["href"]).text.splitlines()]
    scores = report["model"]["metrics"]["val"]
    assert len(rows) == scores["samples"] == len({row["image"] for row in rows})
    assert sum(row["true"] == row["predicted"] for row in rows) / len(rows) == pytest.approx(scores["accuracy"])
    surprise = [-math.log(row["true_probability"]) for row in rows]
    assert sum(surprise) / len(rows) == pytest.approx(scores["log_loss"], abs=1e-4)
    for row in rows:
        assert row["top"][0] == {"class": row["predicted"], "probability": row["probability"]}
        assert api.stage.store.exists(row["image"])


def test_a_worker_trains_and_its_model_answers(finished: tuple[Service, str, list[dict[str, Any]]]) -> None:
    from tests.support.images import jpeg, photo

    api, job_id, _ = finished
    result = api.read.get(f"/v1/jobs/{job_id}").json()["result"]
    model = api.read.get(f"/v1/models/{result['model_id']}").json()
    assert model["job_id"] == job_id
    assert model["metrics"]["val"]["accuracy"] == result["accuracy"]["val"]
    answer = api.predict.post(f"/v1/models/{model['id']}/predict", content=jpeg(photo(0, 0)))
    assert answer.status_code == 200
    assert len(answer.json()["items"][0]["predictions"]) == 2


def test_a_worker_stops_a_training_that_is_cancelled(finished: tuple[Service, str, list[dict[str, Any]]]) -> None:
    api, _, _ = finished
    endless = {"epochs": 10_000, "head": {"hidden": [1024, 1024]}}
    job = api.write.post("/v1/jobs", json={"dataset": "pets", **TINY, **endless}).json()["id"]
    with api.read.stream(f"/v1/jobs/{job}/events") as response:
        stream = events(response)
        assert any(one["event"] == "epoch" for one in stream)
        assert api.write.post(f"/v1/jobs/{job}:cancel").json()["state"] == "cancelling"
        last = [one for one in stream if one["event"] == "state"][-1]
    assert last["data"]["state"] == "cancelled"
    assert api.read.get(f"/v1/jobs/{job}").json()["result"] is None
