"""The main job as another service does it, on both deployments: upload, train, poll, stream, classify."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.storage import S3Options
from tests.support import deployments, images
from tests.support.buckets import BUCKET
from tests.support.services import Service

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module", params=["embedded", "team"])
def service(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    empty_postgres: Callable[[], str],
    redis_url: str,
    s3_options: S3Options,
) -> Iterator[Service]:
    home = tmp_path_factory.mktemp(request.param) / "home"
    if request.param == "embedded":
        with deployments.embedded(home) as service:
            yield service
    else:
        s3 = {
            "GRAFT_STORAGE_URL": f"s3://{BUCKET}/e2e",
            "GRAFT_S3_ENDPOINT": str(s3_options.endpoint),
            "GRAFT_S3_ACCESS_KEY": str(s3_options.access_key),
            "GRAFT_S3_SECRET_KEY": str(s3_options.secret_key),
        }
        with deployments.team(home, empty_postgres(), redis_url, **s3) as service:
            yield service


def _labelled_images() -> tuple[bytes, str]:
    """Ants and bees where they are at hand, else generated photographs."""
    real = images.hymenoptera()
    if real is not None:
        return real.read_bytes(), "hymenoptera"
    return images.folder_zip({"moss": 40, "brick": 40, "sky": 40}), "generated"


def _events(service: Service, job_id: str, after: str | None = None) -> list[tuple[str | None, str, Any]]:
    """The job's event stream to its end, as (id, event, data)."""
    headers = {"Last-Event-ID": after} if after else {}
    found: list[tuple[str | None, str, Any]] = []
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
                fields = {}
            else:
                fields = {}
    return found


def test_the_main_job(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    archive, name = _labelled_images()

    answer = service.http.post("/v1/datasets", params={"name": name}, content=archive)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/datasets/{answer.json()['id']}"
    dataset = service.wait_for_dataset(answer.json()["id"])
    assert dataset["state"] == "ready", dataset
    report = dataset["report"]
    assert report["accepted"] == report["files"] - report["rejected_count"] > 100
    counts = dataset["version"]["counts"]
    assert {"train", "val"} <= set(counts)

    # One field, and the defaults do the rest.
    answer = service.http.post("/v1/jobs", json={"dataset": name})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    assert answer.json()["spec"]["backbone"] == "resnet18-tiny64"
    assert answer.json()["spec"]["train"] == "head"

    events = _events(service, job_id)
    states = [data["state"] for _, event, data in events if event == "state"]
    assert states == ["queued", "running", "succeeded"]
    epochs = [data["epoch"] for _, event, data in events if event == "epoch"]
    assert epochs == list(range(1, answer.json()["spec"]["epochs"] + 1))
    fractions = [data["progress"] for _, event, data in events if event == "progress"]
    assert fractions == sorted(fractions)

    job = service.http.get(f"/v1/jobs/{job_id}").json()
    assert job["state"] == "succeeded"
    assert job["progress"] == 1.0
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]
    metrics = service.http.get(f"/v1/jobs/{job_id}/metrics").json()["items"]
    assert [one["epoch"] for one in metrics] == epochs
    assert metrics[-1]["train_loss"] < metrics[0]["train_loss"]

    model = service.http.get(f"/v1/models/{job['result']['model_id']}").json()
    val = model["metrics"]["val"]
    validation_images = sum(counts["val"].values())
    assert val["samples"] == validation_images
    assert sum(map(sum, val["confusion"])) == validation_images
    assert sum(val["confusion"][row][row] for row in range(len(model["classes"]))) == round(
        val["accuracy"] * validation_images
    )
    for one in val["per_class"]:
        assert one["support"] == counts["val"][one["class"]]
        assert 0 < one["precision"] <= 1
        assert 0 < one["recall"] <= 1
        assert 0 < one["f1"] <= 1
    with capsys.disabled():
        print(f"\n{name}, defaults, {model['backbone']}: validation accuracy {val['accuracy']:.1%}")
    assert val["accuracy"] >= 0.78

    _classify(service, model, archive, counts)


def _classify(service: Service, model: dict[str, Any], archive: bytes, counts: dict[str, dict[str, int]]) -> None:
    """Predict on a sample of the uploaded images, in each way there is, and compare the ways."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        names = [name for name in opened.namelist() if name.lower().endswith(".jpg")][::12]
        files = [(name, opened.read(name)) for name in names]
    url = f"/v1/models/{model['id']}/predict"
    answer = service.http.post(url, params={"top_k": 2}, files=[("file", file) for file in files])
    assert answer.status_code == 200, answer.text
    items = answer.json()["items"]
    assert [item["file"] for item in items] == names
    right = sum(f"/{item['predictions'][0]['label']}/" in f"/{item['file']}" for item in items)
    assert right / len(items) >= 0.75
    for item in items:
        first, second = item["predictions"]
        assert first["probability"] >= second["probability"]

    data = files[0][1]
    raw = service.http.post(url, content=data, headers={"Content-Type": "image/jpeg"})
    assert raw.status_code == 200, raw.text
    (alone,) = raw.json()["items"]
    assert alone["file"] is None
    assert alone["predictions"][0]["label"] == items[0]["predictions"][0]["label"]
    assert alone["predictions"][0]["probability"] == pytest.approx(items[0]["predictions"][0]["probability"], abs=1e-4)
    assert len(alone["predictions"]) == min(5, len(model["classes"]))


def test_a_stream_taken_up_again_misses_and_repeats_nothing(service: Service) -> None:
    job = service.http.get("/v1/jobs").json()["items"][0]
    whole = [event for event in _events(service, job["id"]) if event[0]]
    ids = [int(str(number)) for number, _, _ in whole]
    assert ids == list(range(1, len(ids) + 1))
    middle = len(whole) // 2
    rest = [event for event in _events(service, job["id"], after=str(middle)) if event[0]]
    assert rest == whole[middle:]


def test_a_datasets_images_are_classified_in_a_job(service: Service) -> None:
    """On held-out images the rows are what the model's own report says of them."""
    (model,) = service.http.get("/v1/models").json()["items"]
    dataset = service.http.get("/v1/datasets").json()["items"][0]["name"]
    answer = service.http.post("/v1/jobs:predict", json={"model": model["name"], "dataset": dataset, "split": "val"})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    states = [data["state"] for _, event, data in _events(service, job_id) if event == "state"]
    assert states == ["queued", "running", "succeeded"]
    result = service.http.get(f"/v1/jobs/{job_id}").json()["result"]
    lines = service.http.get(f"/v1/jobs/{job_id}/predictions").text.splitlines()
    rows = [json.loads(line) for line in lines]
    assert len(rows) == result["images"] == model["metrics"]["val"]["samples"]
    assert (result["errors"], result["model_id"], result["engine"]) == (0, model["id"], "torch")
    right = sum(row["predictions"][0]["label"] == row["label"] for row in rows)
    assert right / len(rows) == pytest.approx(model["metrics"]["val"]["accuracy"])
    table = csv.DictReader(io.StringIO(service.http.get(f"/v1/jobs/{job_id}/predictions?format=csv").text))
    assert [one["predicted"] for one in table] == [row["predictions"][0]["label"] for row in rows]


def test_a_running_job_is_cancelled(service: Service) -> None:
    dataset = service.http.get("/v1/datasets").json()["items"][0]["name"]
    answer = service.http.post("/v1/jobs", json={"dataset": dataset, "train": "all", "epochs": 500})
    job_id = answer.json()["id"]
    for _, event, data in iter(_first_events(service, job_id)):
        if event == "state" and data["state"] == "running":
            break
    assert service.http.post(f"/v1/jobs/{job_id}:cancel").json()["state"] in ("cancelling", "cancelled")
    job = service.wait_for_job(job_id)
    assert job["state"] == "cancelled"
    assert job["result"] is None
    assert all(model["job_id"] != job_id for model in service.http.get("/v1/models").json()["items"])


def _first_events(service: Service, job_id: str) -> Iterator[tuple[str, str, Any]]:
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        event = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                event = line[7:]
            elif line.startswith("data: "):
                yield "", event, json.loads(line[6:])


def test_weights_in_the_operators_folder_become_the_default(tmp_path: Path, resnet18_weights: Path) -> None:
    """The same job, with nothing but a file more: the path that torchvision's own file takes."""
    archive, name = _labelled_images()
    with deployments.embedded(tmp_path / "home", GRAFT_WEIGHTS_DIR=str(resnet18_weights)) as service:
        (row,) = [one for one in service.http.get("/v1/backbones").json()["items"] if one["default"]]
        assert (row["name"], row["weights"]) == ("resnet18", "present")
        dataset = service.http.post("/v1/datasets", params={"name": name}, content=archive).json()
        assert service.wait_for_dataset(dataset["id"])["state"] == "ready"
        job = service.http.post("/v1/jobs", json={"dataset": name}).json()
        assert job["spec"]["backbone"] == "resnet18"
        assert job["spec"]["input_size"] == 224
        job = service.wait_for_job(job["id"])
        assert job["state"] == "succeeded", job
        # The file's features are the bundled ones at twice their size: far above guessing, below ImageNet's.
        assert job["result"]["accuracy"]["val"] >= 0.65
