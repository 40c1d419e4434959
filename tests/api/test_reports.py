"""Where a model comes from, how it was trained, and what it says of every image it was measured on."""

import csv
import hashlib
import io
import json
from typing import Any, cast
from uuid import uuid4

from app.auth.schemas import Scope
from app.jobs import service as jobs
from app.registry import service as registry
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES, problem
from tests.support.services import Service
from tests.support.stages import FILES, ROW


def test_a_model_is_fine_tuned_again_and_its_lineage_outlives_its_parent(api: Service, trained: FitResult) -> None:
    first = api.model(trained, "pets")
    seen = api.read.get(f"/v1/models/{first}").json()
    assert (seen["parent_id"], seen["lineage"]) == (None, [])

    def again(base: str, **fields: Any) -> dict[str, Any]:
        answer = api.write.post("/v1/jobs", json={"dataset": "pets", "base_model": base, **fields})
        assert answer.status_code == 202, answer.text
        return cast("dict[str, Any]", answer.json())

    # Backbone, input size and head are the base's unless they are asked for.
    spec = again(first, model_name="second")["spec"]
    assert spec["base_model"] == seen["artefact_sha256"]
    assert (spec["backbone"], spec["input_size"]) == (seen["backbone"], seen["preprocessing"]["crop"])
    job = api.stage.claim("train")
    assert job is not None
    second = str(api.stage.finish(job, trained, CLASSES))
    assert again("second", input_size=64, head={"hidden": [4]})["spec"]["input_size"] == 64
    job = api.stage.claim("train")
    assert job is not None
    for model_id in (first, second):
        assert api.write.delete(f"/v1/models/{model_id}").status_code == 204
    # Both rows are gone; what the running job starts from is still needed, and its model knows where it comes from.
    with api.stage.database.reading() as session:
        assert jobs.referenced_blobs(session) == {seen["artefact_sha256"]}
    third = api.read.get(f"/v1/models/{api.stage.finish(job, trained, CLASSES)}").json()
    assert third["parent_id"] == second
    assert [one["model_id"] for one in third["lineage"]] == [second, first]
    assert third["lineage"][1]["dataset_version_id"] == seen["dataset_version_id"]
    with api.stage.database.reading() as session:
        assert jobs.referenced_blobs(session) == set()


def test_a_base_model_that_cannot_be_one_is_refused(api: Service, trained: FitResult) -> None:
    model_id = api.model(trained, "pets")
    stranger = api.caller(api.stage.workspace(), Scope.write)
    for caller, name in ((api.write, "nothing"), (stranger, model_id), (stranger, "pets"), (api.write, str(uuid4()))):
        answer = caller.post("/v1/jobs", json={"dataset": "pets", "base_model": name})
        problem(answer, 422, "unknown_model", "base_model", "GET /v1/models lists models")
    answer = api.write.post("/v1/jobs", json={"dataset": "pets", "base_model": model_id, "backbone": "resnet34"})
    problem(answer, 422, "invalid", "backbone", "the base model is a resnet18-tiny64")


def test_a_report_names_its_files_and_hands_them_out(api: Service, model_id: str) -> None:
    report = api.read.get(f"/v1/models/{model_id}/report").json()
    assert report["model"].items() <= api.read.get(f"/v1/models/{model_id}").json().items()
    assert report["spec"]["backbone"] == "resnet18-tiny64"
    assert report["best_epoch"] >= 1
    ((picture,), (table,)) = report["pictures"], report["evaluations"]
    answer = api.read.get(picture["href"])
    assert (answer.headers["content-type"], answer.content) == ("image/png", FILES["curves.png"])
    answer = api.read.get(table["href"])
    assert answer.headers["content-type"] == "application/jsonl"
    assert json.loads(answer.text) == ROW
    answer = api.read.get(table["href"] + "&format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    heading, row = csv.reader(io.StringIO(answer.text))
    assert heading == ["image", "split", "true", "predicted", "probability", "true_probability", "ood_score"]
    assert row == ["00", "val", 'an "ant", or two', "bees", "0.75", "0.25", ""]
    problem(api.read.get(f"/v1/models/{model_id}/evaluations?split=test"), 404, "no_such_file", remedy="It has curves")
    problem(api.read.get(f"/v1/models/{model_id}/pictures/other.png"), 404, "no_such_file", remedy="It has curves.png")
    problem(api.read.get(f"/v1/models/{model_id}/pictures/x.exe"), 422, "invalid", "name")


def test_pictures_and_tables_are_needed_as_long_as_their_model(api: Service, model_id: str) -> None:
    digests = {hashlib.sha256(data).hexdigest() for data in FILES.values()}
    with api.stage.database.reading() as session:
        assert digests < set(registry.referenced_blobs(session))
    api.write.delete(f"/v1/models/{model_id}")
    with api.stage.database.reading() as session:
        assert registry.referenced_blobs(session) == []
