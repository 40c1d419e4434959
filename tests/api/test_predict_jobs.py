"""Jobs that predict over HTTP: asked for, refused, run by a real worker, their rows downloaded."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.auth.schemas import Scope
from app.core.settings import Settings
from app.datasets import images as dataset_images
from app.datasets import service as datasets
from app.datasets.orm import DatasetImage
from app.jobs import queue
from app.jobs import service as jobs
from app.jobs.queue import Claim
from app.vision.training.result import FitResult
from tests.support.calls import is_uuid, problem
from tests.support.deployments import worker_process
from tests.support.factories import sha
from tests.support.services import Service, open_service

PREDICT = "/v1/jobs:predict"


def ask(api: Service, **body: Any) -> dict[str, Any]:
    answer = api.predict.post(PREDICT, json=body)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def image_ids(api: Service) -> list[str]:
    """Of the images of the workspace's dataset `pets`, oldest first."""
    with api.stage.database.reading() as session:
        dataset = datasets.get(session, api.workspace.id, "pets")
        return [str(image.id) for image in dataset_images.all_images(session, dataset)]


def test_predictions_are_accepted_with_every_default_filled_in(api: Service, model_id: str) -> None:
    answer = api.predict.post(PREDICT, json={"model": "pets", "dataset": "pets"})
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert is_uuid(job["id"])
    assert (job["kind"], job["state"], job["attempt"], job["result"]) == ("predict", "queued", 0, None)
    assert (job["waiting_for"], job["queue_position"]) == ("worker", 1)
    version = api.read.get("/v1/datasets/pets").json()["version"]
    assert job["dataset_version_id"] == version["id"]
    model = api.read.get(f"/v1/models/{model_id}").json()
    assert job["spec"] == {
        "model_id": model_id,
        "model_name": "pets",
        "backbone": model["backbone"],
        "artefact_sha256": model["artefact_sha256"],
        "version": 1,
        "split": None,
        "label": None,
        "images": sum(sum(found.values()) for found in version["counts"].values()),
        "top_k": 5,
        "threshold": 0.0,
        "classes": [],
        "probabilities": "top",
        "engine": "torch",
    }
    assert api.read.get(f"/v1/jobs/{job['id']}").json() == job
    assert [one["id"] for one in api.read.get("/v1/jobs?kind=predict").json()["items"]] == [job["id"]]
    assert job["id"] not in [one["id"] for one in api.read.get("/v1/jobs").json()["items"]]


def test_when_it_runs_and_what_of_the_version_is_the_callers_to_say(api: Service, model_id: str) -> None:
    asked = {"priority": 3, "max_attempts": 2, "max_seconds": 30.5, "run_after": "2999-01-01T00:00:00Z"}
    job = ask(api, model=model_id, dataset="pets", version=1, split="val", label="ants", **asked)
    assert {name: job[name] for name in asked} == asked
    assert job["waiting_for"] == "run_after"
    assert (job["spec"]["split"], job["spec"]["label"]) == ("val", "ants")
    counts = api.read.get("/v1/datasets/pets").json()["version"]["counts"]
    assert job["spec"]["images"] == counts["val"]["ants"]
    assert api.stage.claim("predict") is None


REFUSED: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "nothing to predict": ({"dataset": None}, 422, "invalid", "body"),
    "both": ({"images": ["a"]}, 422, "invalid", "body"),
    "a version of images": ({"dataset": None, "images": ["a"], "version": 1}, 422, "invalid", "body"),
    "no image": ({"dataset": None, "images": []}, 422, "invalid", "images"),
    "too many images": ({"dataset": None, "images": ["a"] * 10_001}, 422, "invalid", "images"),
    "images that are not there": ({"dataset": None, "images": ["a", "b"]}, 422, "unknown_image", "images"),
    "an unknown model": ({"model": "other"}, 422, "unknown_model", "model"),
    "an unknown alias": ({"model": "pets@other"}, 422, "unknown_model", "model"),
    "an unknown dataset": ({"dataset": "other"}, 422, "unknown_dataset", "dataset"),
    "an unknown version": ({"version": 2}, 422, "unknown_version", "version"),
    "an empty split": ({"split": "test"}, 422, "no_images", "split"),
    "an unknown split": ({"split": "all"}, 422, "invalid", "split"),
    "an unknown label": ({"label": "wasps"}, 422, "no_images", "label"),
    "an unknown class": ({"classes": ["wasps"]}, 422, "unknown_class", "classes"),
    "an unknown engine": ({"engine": "abacus"}, 422, "invalid", "engine"),
    "an engine that needs training images": ({"engine": "openvino-int8"}, 422, "invalid", "engine"),
    "no classes": ({"top_k": 0}, 422, "invalid", "top_k"),
    "an unknown field": ({"timeout": 3}, 422, "invalid", "timeout"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_predicted_is_refused_by_name(api: Service, model_id: str, name: str) -> None:
    changed, status, code, field = REFUSED[name]
    body = {"model": "pets", "dataset": "pets"} | changed
    answer = api.predict.post(PREDICT, json={key: value for key, value in body.items() if value is not None})
    problem(answer, status, code, field)
    assert api.read.get("/v1/jobs?kind=predict").json()["items"] == []


def test_a_dataset_that_is_still_read_is_a_conflict(api: Service, model_id: str) -> None:
    api.stage.upload(api.workspace, "young")
    answer = api.predict.post(PREDICT, json={"model": "pets", "dataset": "young"})
    problem(answer, 409, "dataset_not_ready", remedy="wait")


def test_a_request_that_is_sent_again_makes_nothing_new(api: Service, model_id: str) -> None:
    (image, *_) = image_ids(api)
    for body in ({"model": "pets", "dataset": "pets"}, {"model": "pets", "images": [image]}):
        key = {"Idempotency-Key": f"key of {sorted(body)}"}
        first = api.predict.post(PREDICT, json=body, headers=key)
        again = api.predict.post(PREDICT, json=body, headers=key)
        assert (first.status_code, again.status_code) == (202, 202)
        assert again.json() == first.json()
        assert again.headers["idempotent-replayed"] == "true"
        problem(api.predict.post(PREDICT, json=body | {"top_k": 1}, headers=key), 422, "idempotency_key_reused")
    assert len(api.read.get("/v1/jobs?kind=predict").json()["items"]) == 2


def test_another_workspaces_model_dataset_images_and_predictions_are_not_there(
    api: Service, trained: FitResult
) -> None:
    model = api.model(trained)
    (image, *_) = image_ids(api)
    job = ask(api, model="pets", dataset="pets")["id"]
    stranger = api.beside()
    theirs = stranger.model(trained, "theirs")
    for body, code in (
        ({"model": model, "dataset": "theirs"}, "unknown_model"),
        ({"model": theirs, "dataset": "pets"}, "unknown_dataset"),
        ({"model": theirs, "images": [image]}, "unknown_image"),
    ):
        problem(stranger.predict.post(PREDICT, json=body), 422, code)
    assert stranger.read.get("/v1/jobs?kind=predict").json()["items"] == []
    for path in (f"/v1/jobs/{job}", f"/v1/jobs/{job}/predictions"):
        problem(stranger.admin.get(path), 404, "not_found")


def test_no_more_of_them_wait_than_may_and_trainings_do_not_count(make_api: Any, trained: FitResult) -> None:
    api = make_api(max_queued_jobs=2)
    api.model(trained)
    api.training()
    made = [ask(api, model="pets", dataset="pets")["id"] for _ in range(2)]
    refused = api.predict.post(PREDICT, json={"model": "pets", "dataset": "pets"})
    body = problem(refused, 429, "queue_full", remedy="kind=predict")
    assert "batches of predictions" in body["detail"]
    assert api.write.post(f"/v1/jobs/{made[0]}:cancel").json()["state"] == "cancelled"
    ask(api, model="pets", dataset="pets")


def test_there_is_nothing_to_download_before_it_has_succeeded(api: Service, model_id: str) -> None:
    job = ask(api, model="pets", dataset="pets")["id"]
    answer = api.read.get(f"/v1/jobs/{job}/predictions")
    problem(answer, 409, "not_succeeded", remedy="wait=60")
    assert int(answer.headers["retry-after"]) > 0
    problem(api.read.get(f"/v1/jobs/{job}/predictions?format=xml"), 422, "invalid", "format")
    problem(api.read.get(f"/v1/jobs/{job}/checkpoint"), 404, "no_checkpoint")
    api.write.post(f"/v1/jobs/{job}:cancel")
    answer = api.read.get(f"/v1/jobs/{job}/predictions")
    problem(answer, 409, "not_succeeded", remedy="again")
    assert "retry-after" not in answer.headers
    training = api.training()
    problem(api.read.get(f"/v1/jobs/{training}/predictions"), 409, "no_predictions", remedy=PREDICT)


def test_what_a_waiting_job_needs_outlives_its_model_and_holds_its_dataset(api: Service, model_id: str) -> None:
    images = image_ids(api)
    whole, listed = ask(api, model="pets", dataset="pets"), ask(api, model="pets", images=images[:2])
    assert listed["dataset_id"] is None
    assert (listed["dataset_version_id"], listed["spec"]["images"]) == (None, 2)
    assert api.write.delete(f"/v1/models/{model_id}").status_code == 204
    artefact = whole["spec"]["artefact_sha256"]

    def needed() -> set[str]:
        with api.stage.database.reading() as session:
            return set(jobs.referenced_blobs(session))

    assert needed() == {artefact, listed["spec"]["images_sha256"]}
    body = problem(api.write.delete("/v1/datasets/pets"), 409, "dataset_in_use")
    assert whole["id"] in body["detail"]
    api.write.post(f"/v1/jobs/{whole['id']}:cancel")
    assert needed() == {artefact, listed["spec"]["images_sha256"]}
    assert api.write.delete("/v1/datasets/pets").status_code == 204  # the list holds none
    api.write.post(f"/v1/jobs/{listed['id']}:cancel")
    assert needed() == set()


def test_rows_that_are_kept_to_go_on_from_are_no_checkpoint_to_download(api: Service, model_id: str) -> None:
    job = ask(api, model="pets", dataset="pets")["id"]
    claimed = api.stage.claim("predict")
    assert claimed is not None
    with api.stage.database.writing() as session:
        queue.record_checkpoint(session, Claim(claimed.id, claimed.epoch), api.stage.store.put_bytes(b"{}\n"), 0, 1)
    problem(api.read.get(f"/v1/jobs/{job}/checkpoint"), 404, "no_checkpoint")


@dataclass
class Done:
    """What a real worker made of two jobs: one of the dataset's version, one of a list with bad images in it."""

    api: Service
    model: str
    whole: dict[str, Any]
    listed: dict[str, Any]
    asked: list[str]

    def rows(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.api.read.get(f"/v1/jobs/{job['id']}/predictions")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/jsonl"
        name = f"predictions-{job['id']}.jsonl"
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        return [json.loads(line) for line in answer.text.splitlines()]

    def table(self, job: dict[str, Any]) -> list[dict[str, str]]:
        answer = self.api.read.get(f"/v1/jobs/{job['id']}/predictions?format=csv")
        assert answer.headers["content-type"].startswith("text/csv")
        name = f"predictions-{job['id']}.csv"
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        return list(csv.DictReader(io.StringIO(answer.text)))


def put_bad_images(api: Service) -> list[str]:
    """Images that are in the dataset, though one is no image and the other's bytes are gone: their SHA-256."""
    found = [api.stage.store.put_bytes(b"no image").sha256, sha("gone")]
    with api.stage.database.writing() as session:
        like = session.scalars(select(DatasetImage).limit(1)).one()
        for sha256 in found:
            shape = {"width": 8, "height": 8, "size": 8}
            row = DatasetImage(
                dataset_id=like.dataset_id, sha256=sha256, name="bad", label="ants", split="val", **shape
            )
            session.add(row)
    return found


@pytest.fixture(scope="module")
def done(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory, trained: FitResult) -> Iterator[Done]:
    home = tmp_path_factory.mktemp("predicted")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    settings = Settings(home=home, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
    with open_service(settings) as api:
        model = api.model(trained)
        images, ids = api.read.get("/v1/datasets/pets/images").json()["items"], image_ids(api)
        bad, gone = put_bad_images(api)
        asked = [ids[0], "nobody", images[0]["sha256"], bad, gone, ids[1]]
        whole = ask(api, model=model, dataset="pets", probabilities="all", top_k=1)
        listed = ask(api, model="pets", images=asked, top_k=2, threshold=0.5)
        with worker_process(home):
            ended = []
            for job in (whole, listed):
                job = api.read.get(f"/v1/jobs/{job['id']}?wait=60").json()
                while job["state"] in ("queued", "running"):
                    job = api.read.get(f"/v1/jobs/{job['id']}?wait=60").json()
                assert job["state"] == "succeeded", job["failure"]
                ended.append(job)
        yield Done(api, model, *ended, asked)


def test_a_version_is_predicted_image_by_image_as_a_predict_call_would(done: Done) -> None:
    rows = done.rows(done.whole)
    with done.api.stage.database.reading() as session:
        known = {one.sha256: one for one in session.scalars(select(DatasetImage).where(DatasetImage.name != "bad"))}
    assert len(rows) == len({row["image"] for row in rows}) == len(known) == done.whole["spec"]["images"]
    assert [(row["split"], row["label"], row["image"]) for row in rows] == sorted(
        (one.split, one.label, one.sha256) for one in known.values()
    )
    body = {"images": [{"id": row["image"]} for row in rows], "engine": "torch", "probabilities": "all", "top_k": 1}
    answer = done.api.predict.post(f"/v1/models/{done.model}/predict", json=body).json()
    assert answer["engine"] == done.whole["result"]["engine"] == "torch"
    for row, item in zip(rows, answer["items"], strict=True):
        assert (row["id"], row["status"], item["status"]) == (None, "ok", "ok")
        assert [one["label"] for one in row["predictions"]] == [one["label"] for one in item["predictions"]]
        assert row["predictions"][0]["probability"] == pytest.approx(item["predictions"][0]["probability"], abs=1e-5)
        assert row["probabilities"] == pytest.approx(item["probabilities"], abs=1e-5)
        assert "error" not in row


def test_the_result_counts_what_the_rows_say(done: Done) -> None:
    rows, result = done.rows(done.whole), done.whole["result"]
    best = [row["predictions"][0]["label"] for row in rows]
    assert result["predicted"] == {label: best.count(label) for label in ("ants", "bees")}
    assert min(result["predicted"].values()) > 0
    assert (result["images"], result["errors"], result["model_id"]) == (len(rows), 0, done.model)
    assert (done.whole["progress"], done.whole["failure"]) == (1, None)
    assert (done.listed["result"]["images"], done.listed["result"]["errors"]) == (6, 3)


def test_of_a_list_each_image_has_a_row_and_a_bad_one_spoils_no_other(done: Done) -> None:
    rows = done.rows(done.listed)
    assert [row["id"] for row in rows] == done.asked
    codes = [row.get("error", {}).get("code") for row in rows]
    assert codes == [None, "unknown_image", None, "not_an_image", "image_gone", None]
    whole = {row["image"]: row["probabilities"] for row in done.rows(done.whole)}
    for row in rows:
        assert (row["split"], row["label"]) == (None, None)
        if "error" in row:
            assert (row["status"], row["predictions"]) == ("error", [])
            assert row["error"]["detail"]
        else:
            expected = {label: share for label, share in whole[row["image"]].items() if share >= 0.5}
            named = {one["label"]: one["probability"] for one in row["predictions"]}
            assert named == pytest.approx(expected, abs=1e-5)
            assert "probabilities" not in row
    assert rows[1]["image"] is None
    # A predict call says the same of a bad image.
    bad = done.api.predict.post(
        f"/v1/models/{done.model}/predict", json={"images": [{"id": one} for one in done.asked]}
    )
    assert bad.status_code == 207
    assert bad.json()["items"][3]["error"] == rows[3]["error"]
    assert bad.json()["items"][1]["error"] == rows[1]["error"]


def test_csv_has_the_same_rows(done: Done) -> None:
    rows, table = done.rows(done.whole), done.table(done.whole)
    assert list(table[0]) == [
        *("image", "id", "split", "label", "status", "decision", "ood_score", "predicted", "probability"),
        *("error", "detail"),
        *("probability:ants", "probability:bees"),
    ]
    assert len(rows) == len(table)
    for row, line in zip(rows, table, strict=True):
        assert (line["image"], line["split"], line["label"]) == (row["image"], row["split"], row["label"])
        assert (line["id"], line["error"], line["detail"]) == ("", "", "")
        assert line["predicted"] == row["predictions"][0]["label"]
        assert float(line["probability"]) == row["predictions"][0]["probability"]
        assert {label: float(line[f"probability:{label}"]) for label in ("ants", "bees")} == row["probabilities"]
    rows, table = done.rows(done.listed), done.table(done.listed)
    assert [line["error"] for line in table] == [row.get("error", {}).get("code", "") for row in rows]
    assert "probability:ants" not in table[0]


def test_rows_are_needed_as_long_as_their_job_and_nobody_elses_to_read(done: Done) -> None:
    with done.api.stage.database.reading() as session:
        needed = jobs.referenced_blobs(session)
    assert sorted(needed) == sorted(job["result"]["file"]["sha256"] for job in (done.whole, done.listed))
    stranger = done.api.caller(done.api.stage.workspace(), Scope.admin)
    problem(stranger.get(f"/v1/jobs/{done.whole['id']}/predictions"), 404, "not_found")
