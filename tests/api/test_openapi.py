"""The schema describes what the service does: every operation, every body, every error."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from app.api.app import create_app
from app.api.deps import OPEN_ROUTES
from app.core.settings import Settings
from tests.support.calls import Caller, problem
from tests.support.services import Service
from tests.support.stages import Stage

Operation = tuple[str, str, dict[str, Any]]


@pytest.fixture(scope="module")
def schema(shared: Service) -> dict[str, Any]:
    found: dict[str, Any] = shared.nobody.get("/openapi.json").json()
    return found


def operations(schema: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_the_document_is_valid(schema: dict[str, Any]) -> None:
    validate(copy.deepcopy(schema))
    assert schema["openapi"].startswith("3.1")


def test_every_operation_has_a_summary_and_a_tag(schema: dict[str, Any]) -> None:
    found = list(operations(schema))
    assert len(found) == 67
    assert [path for _, path, one in found if not one.get("summary") or len(one.get("tags", [])) != 1] == []
    ids = [one["operationId"] for _, _, one in found]
    assert len(set(ids)) == len(ids)


def test_every_body_is_documented_and_every_json_body_has_an_example(schema: dict[str, Any]) -> None:
    with_body = set()
    for method, path, operation in operations(schema):
        if method in ("post", "patch", "put") and not path.endswith(
            (":cancel", ":pin", ":unpin", "/versions", "/uploads")
        ):
            with_body.add(path)
            content = operation["requestBody"]["content"]
            assert content
            for media_type, described in content.items():
                assert described.get("schema"), (path, media_type)
            if "application/json" in content:
                described = content["application/json"]
                name = described["schema"]["$ref"].rpartition("/")[2]
                assert described.get("examples") or schema["components"]["schemas"][name]["examples"]
        else:
            assert "requestBody" not in operation
    assert with_body == {
        "/v1/datasets",
        "/v1/datasets:import",
        "/v1/datasets/{dataset_id}",
        "/v1/datasets/{dataset_id}/images",
        "/v1/datasets/{dataset_id}/images/{sha256}",
        "/v1/jobs",
        "/v1/jobs:plan",
        "/v1/jobs:predict",
        "/v1/keys",
        "/v1/uploads/{upload_id}",
        "/v1/models/{model_id}/decisions",
        "/v1/models/{model}/predict",
        "/v1/models/{name}/aliases/{alias}",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}/infer",
    }


def test_the_example_of_a_predict_call_is_answered(schema: dict[str, Any], api: Service, model_id: str) -> None:
    (example,) = schema["components"]["schemas"]["PredictRequest"]["examples"]
    answer = api.predict.post(f"/v1/models/{model_id}/predict", json=example)
    assert answer.status_code == 200, answer.text
    assert answer.json()["items"][0]["file"] == example["images"][0]["name"]


def test_the_example_of_an_infer_call_is_answered(schema: dict[str, Any], api: Service, model_id: str) -> None:
    (example,) = schema["components"]["schemas"]["InferRequest"]["examples"]
    answer = api.predict.post(f"/v2/models/{model_id}/infer", json=example)
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == example["id"]
    assert [output["name"] for output in answer.json()["outputs"]] == ["labels"]


def test_the_examples_are_accepted(schema: dict[str, Any], api: Service) -> None:
    api.dataset("pets")
    schemas = schema["components"]["schemas"]
    for example in schemas["NewKey"]["examples"]:
        assert api.admin.post("/v1/keys", json=example).status_code == 201
    first, full = schemas["TrainRequest"]["examples"]
    assert api.write.post("/v1/jobs", json=first).status_code == 202
    # Its backbone's weights are not on this server; all else of it is as good.
    problem(api.write.post("/v1/jobs", json=full), 422, "weights_unavailable", "backbone")
    bundled = api.write.post("/v1/jobs", json=full | {"backbone": "resnet18-tiny64"})
    assert bundled.status_code == 202, bundled.text


def test_the_examples_of_jobs_that_predict_are_accepted(schema: dict[str, Any], api: Service, model_id: str) -> None:
    """But for the names that this service has none of: there are no cats here, and no such image."""
    api.write.put("/v1/models/pets/aliases/production", json={"model": model_id})
    image = api.read.get("/v1/datasets/pets/images?limit=1").json()["items"][0]["sha256"]
    examples = schema["components"]["schemas"]["PredictJobRequest"]["examples"]
    for example, here in zip(examples, ({}, {"label": "ants"}, {"images": [image]}), strict=True):
        answer = api.predict.post("/v1/jobs:predict", json=example | here)
        assert answer.status_code == 202, answer.text


def test_every_error_is_documented_as_a_problem(schema: dict[str, Any]) -> None:
    for method, path, operation in operations(schema):
        statuses = operation["responses"].keys()
        if operation["security"]:
            assert {"401", "403", "503"} <= statuses, path
        if "{" in path:
            assert "404" in statuses, path
        for status, response in operation["responses"].items():
            if status >= "400" and not path.startswith("/readyz"):
                assert list(response["content"]) == ["application/problem+json"], (method, path, status)
                assert response["content"]["application/problem+json"]["schema"] == {
                    "$ref": "#/components/schemas/Problem"
                }
    assert "HTTPValidationError" not in schema["components"]["schemas"]


def test_closed_operations_name_the_key_and_open_ones_do_not(schema: dict[str, Any]) -> None:
    (scheme,) = schema["components"]["securitySchemes"].values()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    for _, path, operation in operations(schema):
        assert bool(operation.get("security")) == (path not in OPEN_ROUTES), path


def test_what_is_created_later_says_where(schema: dict[str, Any]) -> None:
    for path in ("/v1/datasets", "/v1/jobs", "/v1/jobs:predict"):
        assert "202" in schema["paths"][path]["post"]["responses"]
    assert "text/event-stream" in schema["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]


def test_jobs_of_each_kind_are_what_the_document_says(schema: dict[str, Any], api: Service, model_id: str) -> None:
    """Before and after their end; and what a spec or a result holds is documented by name."""
    training = api.training("pets", head={"hidden": [4]})
    api.training("pets", base_model=model_id, augmentation=[{"name": "rotate", "degrees": 15}])
    answer = api.predict.post("/v1/jobs:predict", json={"model": "pets", "dataset": "pets"})
    assert answer.status_code == 202, answer.text
    seen = set()
    for kind in ("train", "ingest", "predict"):
        for job in api.read.get(f"/v1/jobs?kind={kind}").json()["items"]:
            jsonschema.validate(job, {"$ref": "#/components/schemas/JobOut", "components": schema["components"]})
            documented = schema["components"]["schemas"]
            assert job["spec"].keys() <= documented[f"{kind.title()}Spec"]["properties"].keys()
            assert (job["result"] or {}).keys() <= documented[f"{kind.title()}Result"]["properties"].keys()
            seen.add((kind, job["state"]))
    assert seen == {("train", "queued"), ("train", "succeeded"), ("ingest", "succeeded"), ("predict", "queued")}
    other = api.read.get(f"/v1/jobs/{training}").json() | {"kind": "ingest"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(other, {"$ref": "#/components/schemas/JobOut", "components": schema["components"]})


def test_the_page_needs_no_network(shared: Service) -> None:
    page = shared.nobody.get("/docs").text
    assert "https://" not in page
    assert shared.nobody.get("/docs/files/swagger-ui-bundle.js").status_code == 200


def test_a_crash_is_a_500_that_tells_nothing(settings: Settings, sqlite_url: str, tmp_path: Path) -> None:
    app = create_app(settings)

    @app.get("/v1/broken")
    def broken() -> None:
        raise RuntimeError(f"the password is hunter2, in {tmp_path}")

    with TestClient(app, raise_server_exceptions=False) as client:
        services = app.state.services
        workspace = Stage(settings, services.database, services.store).workspace()
        caller = Caller(client, next(iter(workspace.secrets.values())))
        response = caller.get("/v1/broken")
        body = problem(response, 500, "internal", remedy="log")
        assert "hunter2" not in response.text
        assert str(tmp_path) not in response.text
        assert "Traceback" not in response.text
        assert body["errors"] == []
        problem(Caller(client, None).get("/v1/broken"), 401, "unauthenticated")  # closed, like any new route
