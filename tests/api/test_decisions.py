"""Over HTTP: what is accepted, what is not, and what is like nothing the model was trained on."""

import base64
import json
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from PIL import Image

from app.auth.schemas import Scope
from app.predictions.batch.rows import AskedImage
from app.predictions.schemas import Naming
from app.registry.orm import Model
from app.vision.artefacts.model_file import load_model
from app.vision.artefacts.tables import json_lines
from app.vision.backbones.weights import BUNDLED
from app.vision.data.samples import Sample
from app.vision.scores.intervals import least_trials
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from app.vision.training.result import FitResult
from tests.support.calls import CLASSES, problem
from tests.support.images import jpeg, photo, png
from tests.support.services import Service
from tests.support.stages import TINY, Silent
from worker.kinds.predict import _rows

TARGET = 0.8


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[FitResult, list[Sample]]:
    """A model with a target that 25 validation images of each class suffice to show, and those images."""
    folder = tmp_path_factory.mktemp("judged")
    samples = []
    for label, name in enumerate(CLASSES):
        for number in range(45):
            path = folder / f"{name}-{number}.png"
            photo(label, number).save(path)
            samples.append(Sample(path, label, "train" if number < 20 else "val"))
    assert least_trials(TARGET) <= 20
    config = TrainConfig(**TINY, target_precision=TARGET)  # type: ignore[arg-type]
    weights = BUNDLED / "resnet18-tiny64.safetensors"
    return fit(config, samples, CLASSES, weights=weights, workdir=folder / "work", observer=Silent()), samples


@pytest.fixture
def model(api: Service, judged: tuple[FitResult, list[Sample]]) -> str:
    """As a worker would have left it, with its table."""
    result, _ = judged
    model_id = api.model(result)
    table = api.stage.store.put_bytes(b"".join(json_lines(result.tables["evaluations-val"].rows())))
    with api.stage.database.writing() as session:
        files = {"evaluations-val.jsonl": {"sha256": table.sha256, "size": table.size}}
        session.get_one(Model, UUID(model_id)).files = files
    return model_id


def ask(api: Service, model: str, picture: Image.Image) -> Any:
    (item,) = api.predict.post(f"/v1/models/{model}/predict", content=jpeg(picture, quality=95)).json()["items"]
    return item


def unlike() -> Image.Image:
    """Nothing that was trained on: noise, black and white."""
    noise = np.random.default_rng(0).integers(0, 2, (64, 64, 1), dtype=np.uint8) * np.full(3, 255, np.uint8)
    return Image.fromarray(noise)


def test_answers_are_accepted_left_open_or_unknown(api: Service, model: str, judged: tuple[FitResult, Any]) -> None:
    shown = api.read.get(f"/v1/models/{model}").json()["decisions"]
    assert shown == json.loads(json.dumps(judged[0].recorded["decisions"]))
    assert shown["target_precision"] == TARGET
    assert set(shown["thresholds"]) == set(CLASSES)
    assert all(threshold is not None for threshold in shown["thresholds"].values())
    found = shown["splits"]["val"]
    assert found["precision_low"] >= TARGET
    assert found["coverage"] > 0.8

    item = ask(api, model, photo(0, 100))
    best = item["predictions"][0]
    accepted = best["probability"] >= shown["thresholds"][best["label"]]
    assert item["decision"] == ("accept" if accepted else "abstain")
    assert 0 < item["ood_score"] <= 1
    strange = ask(api, model, unlike())
    assert strange["decision"] == "unknown"
    assert strange["ood_score"] > 1


def test_another_target_needs_no_training(api: Service, model: str, judged: tuple[FitResult, Any]) -> None:
    path, before = f"/v1/models/{model}/decisions", judged[0].recorded["decisions"]
    answer = api.write.put(path, json={"target_precision": TARGET})
    assert answer.status_code == 200, answer.text
    assert answer.json() == json.loads(json.dumps(before))

    strict = api.write.put(path, json={"target_precision": 0.99}).json()  # it would take hundreds of images
    assert set(strict["thresholds"].values()) == {None}
    assert strict["splits"]["val"]["accepted"] == 0
    assert api.read.get(f"/v1/models/{model}").json()["decisions"] == strict
    assert ask(api, model, photo(0, 100))["decision"] == "abstain"
    assert ask(api, model, unlike())["decision"] == "unknown"

    assert api.write.delete(path).status_code == 204
    assert api.read.get(f"/v1/models/{model}").json()["decisions"] is None
    assert ask(api, model, photo(0, 100))["decision"] is None
    assert ask(api, model, unlike())["decision"] == "unknown"
    assert api.write.delete(path).status_code == 204


def test_a_target_that_cannot_be_set_is_refused(api: Service, model: str, model_id: str) -> None:
    path = f"/v1/models/{model}/decisions"
    for body in ({"target_precision": 0.4}, {"target_precision": 1.0}, {}):
        problem(api.write.put(path, json=body), 422, "invalid", "target_precision")
    with api.stage.database.writing() as session:
        session.get_one(Model, UUID(model_id)).files = {}
    older = api.write.put(f"/v1/models/{model_id}/decisions", json={"target_precision": 0.9})
    problem(older, 409, "no_evaluations", remedy="Train it again")
    stranger = api.caller(api.stage.workspace(), Scope.write)
    problem(stranger.put(path, json={"target_precision": 0.9}), 404, "not_found")


def test_a_job_that_predicts_decides_by_the_thresholds_it_was_sent_with(
    api: Service, model: str, judged: tuple[FitResult, list[Sample]]
) -> None:
    job = api.predict.post("/v1/jobs:predict", json={"model": model, "dataset": "pets"}).json()
    shown = api.read.get(f"/v1/models/{model}").json()["decisions"]
    assert job["spec"]["thresholds"] == [shown["thresholds"][label] for label in CLASSES]
    classifier = load_model(judged[0].model_path)
    pictures = (photo(0, 100), unlike())
    batch: list[tuple[AskedImage, Any]] = [(AskedImage("00"), classifier.prepare(picture)) for picture in pictures]
    rows = list(_rows(batch, classifier, Naming(), job["spec"]["thresholds"]))
    assert [row["decision"] for row in rows] == [ask(api, model, picture)["decision"] for picture in pictures]
    assert rows[1]["decision"] == "unknown"
    assert rows[1]["ood_score"] > 1


def test_a_model_of_a_dozen_images_decides_nothing(api: Service, model_id: str) -> None:
    item = ask(api, model_id, unlike())
    assert (item["decision"], item["ood_score"]) == (None, None)


def test_the_inference_protocol_gives_decisions_to_who_asks(api: Service, model: str, model_id: str) -> None:
    files = [base64.b64encode(png(picture)).decode() for picture in (photo(0, 100), unlike())]
    asked: dict[str, Any] = {"inputs": [{"name": "encoded", "shape": [2], "datatype": "BYTES", "data": files}]}
    path = f"/v2/models/{model}/infer"
    named = [one["name"] for one in api.predict.post(path, json=asked).json()["outputs"]]
    assert named == ["probabilities", "labels"]
    asked["outputs"] = [{"name": "decisions"}, {"name": "ood_score"}, {"name": "probabilities"}]
    decisions, scores, probabilities = api.predict.post(path, json=asked).json()["outputs"]
    assert (decisions["datatype"], decisions["shape"]) == ("BYTES", [2])
    assert decisions["data"] in (["accept", "unknown"], ["abstain", "unknown"])
    assert probabilities["shape"] == [2, 2]
    assert (scores["datatype"], scores["shape"]) == ("FP32", [2])
    assert scores["data"][0] <= 1 < scores["data"][1]
    asked["outputs"] = [{"name": "decisions", "parameters": {"classification": 1}}]
    problem(api.predict.post(path, json=asked), 422, "invalid", "classification")
    asked["outputs"] = [{"name": "ood_score"}]
    problem(api.predict.post(f"/v2/models/{model_id}/infer", json=asked), 422, "invalid", "ood_score")
