"""Over HTTP: an engine is chosen on held-out images, remembered, shown, and overruled by who insists on another."""

import importlib.util
import time
from typing import Any
from uuid import UUID

import pytest

from app.auth.schemas import Scope
from app.predictions.orm import ModelEngine
from app.predictions.serving.tuning import machine
from app.vision.training.result import FitResult
from tests.support.calls import problem
from tests.support.images import folder_zip, jpeg, photo
from tests.support.services import OpenService, Service, open_service

PICTURE = jpeg(photo(0, 50))
HELD_OUT = {"train": 10, "val": 12}


def predict(api: Service, model: str, query: str = "") -> Any:
    response = api.predict.post(f"/v1/models/{model}/predict{query}", content=PICTURE)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture
def model_id(make_api: OpenService, trained: FitResult) -> tuple[Service, str]:
    """A model whose dataset has 24 images to validate, in a service that may choose bfloat16 after three images."""
    api = make_api(engines="torch-bf16", engine_after_images=3)
    api.dataset("pets", folder_zip({"ants": 8, "bees": 8}, split=HELD_OUT))
    return api, api.model(trained)


def engines(api: Service, model: str) -> Any:
    return api.read.get(f"/v1/models/{model}").json()["engines"]


def test_an_engine_is_measured_remembered_and_used(model_id: tuple[Service, str]) -> None:
    api, model = model_id
    assert predict(api, model)["engine"] == "torch"
    before = predict(api, model)["items"][0]["predictions"]
    assert engines(api, model) == []
    predict(api, model)
    deadline = time.monotonic() + 120
    while not engines(api, model):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (found,) = engines(api, model)
    assert found["machine"] == machine(gpu=False)
    reference, other = found["measured"]
    assert (reference["engine"], reference["agreement"], reference["images"]) == ("torch", 1, 24)
    assert other["engine"] == "torch-bf16"
    assert 0 <= other["agreement"] <= 1
    fastest = min(
        (one for one in found["measured"] if one["usable"]), key=lambda one: one["single_ms"] * one["large_ms"]
    )
    assert found["chosen"] == fastest["engine"]

    with api.stage.database.writing() as session:  # as if another engine had been the fastest
        session.get_one(ModelEngine, (UUID(model), machine(gpu=False))).chosen = "torch-bf16"
    with open_service(api.stage.settings) as again:
        again.predict = again.caller(api.workspace, Scope.predict)
        again.read = again.caller(api.workspace, Scope.read)
        answer = predict(again, model)
        assert answer["engine"] == "torch-bf16"
        assert again.read.get(f"/v1/models/{model}").json()["serving"]["engine"] == "torch-bf16"
        after = answer["items"][0]["predictions"]
        assert [one["label"] for one in after] == [one["label"] for one in before]
        assert after[0]["probability"] == pytest.approx(before[0]["probability"], abs=0.05)
        assert predict(again, model, "?engine=torch")["engine"] == "torch"


def test_who_insists_on_an_engine_gets_it(model_id: tuple[Service, str], monkeypatch: pytest.MonkeyPatch) -> None:
    api, model = model_id
    assert predict(api, model, "?engine=torch-bf16")["engine"] == "torch-bf16"
    assert predict(api, model)["engine"] == "torch"
    bad = api.predict.post(f"/v1/models/{model}/predict?engine=cuda", content=PICTURE)
    problem(bad, 422, "invalid", "engine", "torch-bf16")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    without = api.predict.post(f"/v1/models/{model}/predict?engine=openvino", content=PICTURE)
    problem(without, 422, "engine_unavailable", "engine", "graftwork[openvino]")


def test_a_calibrated_int8_engine_answers_like_the_reference(model_id: tuple[Service, str]) -> None:
    pytest.importorskip("openvino")
    api, model = model_id
    expected = predict(api, model, "?engine=torch")["items"][0]["predictions"]
    answer = predict(api, model, "?engine=openvino-int8&timeout=300")  # exported, and calibrated on its own images
    assert answer["engine"] == "openvino-int8"
    best = answer["items"][0]["predictions"][0]
    assert best["label"] == expected[0]["label"]
    assert best["probability"] == pytest.approx(expected[0]["probability"], abs=0.15)
    (folder,) = api.stage.settings.engine_files.iterdir()
    assert {path.name for path in folder.iterdir()} >= {"scored.float32.onnx", "scored.int8.onnx"}


def test_with_too_few_images_to_compare_on_the_reference_stays(make_api: OpenService, trained: FitResult) -> None:
    api = make_api(engines="torch-bf16", engine_after_images=1)
    model = api.model(trained)  # its dataset has 8 images to validate
    predict(api, model)
    deadline = time.monotonic() + 120
    while not engines(api, model):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (found,) = engines(api, model)
    assert found["chosen"] == "torch"
    assert "fewer than 20 images" in found["measured"][0]["detail"]


def test_an_engine_that_has_no_images_to_be_calibrated_on_is_a_conflict(api: Service, trained: FitResult) -> None:
    pytest.importorskip("openvino")
    model = api.model(trained)  # its dataset has 16 images to learn from
    for _ in range(2):  # and is remembered as one
        refused = api.predict.post(f"/v1/models/{model}/predict?engine=openvino-int8&timeout=300", content=PICTURE)
        assert "fewer than 20 images left in train" in problem(refused, 409, "conflict")["detail"]
    assert predict(api, model)["engine"] == "torch"
