"""Every route is closed unless it is on the short list of open ones; a key opens what its scope and workspace hold."""

import re
from typing import Any

import pytest

from app.auth.schemas import Scope
from app.vision.training.result import FitResult
from tests.support.calls import Caller, problem
from tests.support.resumable import TUS, begin
from tests.support.routes import filled, walk
from tests.support.services import Service

OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/readyz/uploads"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
}
# What each closed route asks for. A new route has to be written down here.
SCOPES = {
    ("GET", "/v1/backbones"): Scope.read,
    ("POST", "/v1/datasets"): Scope.write,
    ("POST", "/v1/datasets:import"): Scope.write,
    ("GET", "/v1/datasets"): Scope.read,
    ("GET", "/v1/datasets/{dataset_id}"): Scope.read,
    ("DELETE", "/v1/datasets/{dataset_id}"): Scope.write,
    ("PUT", "/v1/datasets/{dataset_id}"): Scope.write,
    ("GET", "/v1/datasets/{dataset_id}/report"): Scope.read,
    ("GET", "/v1/datasets/{dataset_id}/images"): Scope.read,
    ("POST", "/v1/datasets/{dataset_id}/images"): Scope.write,
    ("GET", "/v1/datasets/{dataset_id}/images/{sha256}"): Scope.read,
    ("GET", "/v1/datasets/{dataset_id}/images/{sha256}/file"): Scope.read,
    ("GET", "/v1/datasets/{dataset_id}/images/{sha256}/thumbnail"): Scope.read,
    ("PATCH", "/v1/datasets/{dataset_id}/images/{sha256}"): Scope.write,
    ("DELETE", "/v1/datasets/{dataset_id}/images/{sha256}"): Scope.write,
    ("GET", "/v1/datasets/{dataset_id}/versions"): Scope.read,
    ("POST", "/v1/datasets/{dataset_id}/versions"): Scope.write,
    ("GET", "/v1/datasets/{dataset_id}/versions/{number}"): Scope.read,
    ("GET", "/v1/datasets/{dataset_id}/versions/{number}/archive"): Scope.read,
    ("GET", "/v1/images/{sha256}/lineage"): Scope.read,
    ("OPTIONS", "/v1/uploads"): Scope.write,
    ("POST", "/v1/uploads"): Scope.write,
    ("GET", "/v1/uploads/{upload_id}"): Scope.read,
    ("PATCH", "/v1/uploads/{upload_id}"): Scope.write,
    ("DELETE", "/v1/uploads/{upload_id}"): Scope.write,
    ("POST", "/v1/jobs"): Scope.write,
    ("POST", "/v1/jobs:plan"): Scope.read,
    ("POST", "/v1/jobs:predict"): Scope.predict,
    ("GET", "/v1/jobs"): Scope.read,
    ("GET", "/v1/jobs/{job_id}"): Scope.read,
    ("POST", "/v1/jobs/{job_id}:cancel"): Scope.write,
    ("GET", "/v1/jobs/{job_id}/metrics"): Scope.read,
    ("GET", "/v1/jobs/{job_id}/checkpoint"): Scope.read,
    ("GET", "/v1/jobs/{job_id}/events"): Scope.read,
    ("GET", "/v1/events"): Scope.read,
    ("GET", "/v1/events/stream"): Scope.read,
    ("GET", "/v1/jobs/{job_id}/predictions"): Scope.read,
    ("GET", "/v1/workers"): Scope.read,
    ("GET", "/v1/models"): Scope.read,
    ("GET", "/v1/models/{model}"): Scope.read,
    ("GET", "/v1/models/{model}/report"): Scope.read,
    ("GET", "/v1/models/{model}/pictures/{name}"): Scope.read,
    ("GET", "/v1/models/{model}/evaluations"): Scope.read,
    ("DELETE", "/v1/models/{model_id}"): Scope.write,
    ("PUT", "/v1/models/{model_id}/decisions"): Scope.write,
    ("DELETE", "/v1/models/{model_id}/decisions"): Scope.write,
    ("POST", "/v1/models/{model_id}:pin"): Scope.write,
    ("POST", "/v1/models/{model_id}:unpin"): Scope.write,
    ("GET", "/v1/models/{name}/aliases"): Scope.read,
    ("PUT", "/v1/models/{name}/aliases/{alias}"): Scope.write,
    ("DELETE", "/v1/models/{name}/aliases/{alias}"): Scope.write,
    ("POST", "/v1/models/{model}/predict"): Scope.predict,
    ("GET", "/v2"): Scope.read,
    ("GET", "/v2/models/{model}"): Scope.read,
    ("GET", "/v2/models/{model}/ready"): Scope.read,
    ("GET", "/v2/models/{model}/versions/{version}"): Scope.read,
    ("GET", "/v2/models/{model}/versions/{version}/ready"): Scope.read,
    ("POST", "/v2/models/{model}/infer"): Scope.predict,
    ("POST", "/v2/models/{model}/versions/{version}/infer"): Scope.predict,
    ("POST", "/v1/keys"): Scope.admin,
    ("GET", "/v1/keys"): Scope.admin,
    ("DELETE", "/v1/keys/{key_id}"): Scope.admin,
}
# Aliases are asked for by name, and tested by name below; what is put is new.
WITH_ID = [route for route in SCOPES if re.search(r"{(\w+_id|model|sha256)}", route[1]) and route[0] != "PUT"]


def test_every_route_is_written_down_here(shared: Service) -> None:
    found = list(walk(shared.http.app.routes))  # type: ignore[attr-defined]
    assert set(found) == OPEN | SCOPES.keys()
    assert len(found) == len(set(found))


def test_the_walk_finds_what_the_schema_describes(shared: Service) -> None:
    described = {
        (method.upper(), path)
        for path, operations in shared.nobody.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    assert described == SCOPES.keys() | {
        (method, path) for method, path in OPEN if path not in ("/docs", "/openapi.json")
    }


@pytest.mark.parametrize(("method", "path"), sorted(OPEN))
def test_open_routes_answer_without_a_key(shared: Service, method: str, path: str) -> None:
    assert shared.nobody(method, path).status_code == 200


@pytest.mark.parametrize(("method", "path"), SCOPES)
def test_closed_routes_need_a_key(shared: Service, method: str, path: str) -> None:
    response = shared.nobody(method, filled(path))
    problem(response, 401, "unauthenticated", remedy="graft keys create")
    assert response.headers["www-authenticate"] == 'Bearer realm="graftwork"'


@pytest.mark.parametrize(("method", "path"), SCOPES)
@pytest.mark.parametrize(
    "authorization",
    ["Bearer gw_wrong", "Bearer", "Bearer ", "Basic Z3c6Z3c=", "gw_wrong", "Bearer gw_\u00e9\u00e8".encode("latin-1")],
)
def test_a_wrong_key_opens_nothing(shared: Service, method: str, path: str, authorization: Any) -> None:
    response = shared.http.request(method, filled(path), headers={"Authorization": authorization})
    problem(response, 401, "unauthenticated")


@pytest.mark.parametrize(("method", "path"), SCOPES)
def test_a_revoked_key_opens_nothing(shared: Service, method: str, path: str) -> None:
    made = shared.admin.post("/v1/keys", json={"name": "leaver", "scopes": ["admin"]}).json()
    leaver = Caller(shared.http, made["secret"])
    assert leaver.get("/v1/keys").status_code == 200
    assert shared.admin.delete(f"/v1/keys/{made['id']}").status_code == 200
    problem(leaver(method, filled(path)), 401, "key_revoked", remedy="leaver")


@pytest.mark.parametrize(("method", "path"), SCOPES)
@pytest.mark.parametrize("scope", Scope)
def test_a_key_does_what_its_scope_covers(shared: Service, method: str, path: str, scope: Scope) -> None:
    needed = SCOPES[method, path]
    response = shared.caller(shared.workspace, scope)(method, filled(path))
    if scope.covers(needed):
        assert response.status_code not in (401, 403), response.text
    else:
        problem(response, 403, "missing_scope", remedy=f"--scope {needed}")


# It says what a job would do; that it leaves nothing behind has a test beside its own.
ASKS_ONLY = {("POST", "/v1/jobs:plan")}


def test_a_read_key_changes_nothing(shared: Service) -> None:
    for method, path in SCOPES.keys() - ASKS_ONLY:
        if method != "GET":
            assert shared.read(method, filled(path)).status_code == 403
    assert all(SCOPES[route] is Scope.read for route in SCOPES if route[0] == "GET" and route[1] != "/v1/keys")


@pytest.mark.parametrize(("method", "path"), WITH_ID)
def test_what_another_workspace_has_is_not_there(api: Service, trained: FitResult, method: str, path: str) -> None:
    dataset = api.dataset("pets")
    model = api.model(trained)
    job = api.training("pets")
    key = api.admin.get("/v1/keys").json()["items"][0]["id"]
    image = api.read.get(f"/v1/datasets/{dataset}/images").json()["items"][0]["sha256"]
    existing = {
        "dataset_id": dataset,
        "job_id": job,
        "model_id": model,
        "model": model,
        "key_id": key,
        "upload_id": begin(api.write).json()["id"],
        "sha256": image,
        "number": "1",
        "version": model,
        "name": "curves.png",
    }
    stranger = api.caller(api.stage.workspace(), Scope.admin)
    address = path.format_map(existing)
    body: dict[str, Any] = {}
    if path.endswith("/predict"):
        body = {"content": b"\xff", "headers": {"Content-Type": "image/jpeg"}}
    elif path.startswith("/v1/uploads"):
        piece = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        body = {"headers": TUS | (piece if method == "PATCH" else {})}
    elif method == "PATCH":
        body = {"json": {"label": "bees"}}
    elif path.endswith("/images"):
        body = {"files": {"file": ("a.jpg", b"\xff")}} if method == "POST" else {}

    problem(stranger(method, address, **body), 404, "not_found")
    api.write.post(f"/v1/jobs/{job}:cancel")  # so that its stream of events ends
    mine = api.admin(method, address, **body)
    assert mine.status_code not in (403, 404) or mine.json()["code"] == "no_checkpoint"


def test_a_dataset_of_another_workspace_cannot_be_named_either(api: Service) -> None:
    dataset = api.dataset("pets")
    stranger = api.caller(api.stage.workspace(), Scope.admin)
    problem(stranger.get("/v1/datasets/pets"), 404, "not_found")
    problem(stranger.delete("/v1/datasets/pets"), 404, "not_found")
    for reference in ("pets", dataset):
        problem(stranger.post("/v1/jobs", json={"dataset": reference}), 422, "unknown_dataset", "dataset")
    assert api.read.get("/v1/datasets/pets").status_code == 200


def test_a_name_or_an_alias_of_another_workspace_means_nothing(api: Service, trained: FitResult) -> None:
    model = api.model(trained)
    assert api.write("PUT", "/v1/models/pets/aliases/best", json={"model": model}).status_code == 200
    stranger = api.caller(api.stage.workspace(), Scope.admin)
    for reference in ("pets", "pets@best"):
        assert api.read.get(f"/v1/models/{reference}").status_code == 200
        problem(stranger.get(f"/v1/models/{reference}"), 404, "not_found")
        sent = {"content": b"\xff", "headers": {"Content-Type": "image/jpeg"}}
        problem(stranger.post(f"/v1/models/{reference}/predict", **sent), 404, "not_found")
    assert stranger.get("/v1/models/pets/aliases").json()["items"] == []
    problem(stranger.delete("/v1/models/pets/aliases/best"), 404, "not_found")
    problem(stranger("PUT", "/v1/models/pets/aliases/best", json={"model": model}), 422, "unknown_model", "model")
    assert api.read.get("/v1/models/pets@best").json()["id"] == model


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/jobs", "/v1/jobs?kind=ingest", "/v1/models", "/v1/keys"])
def test_lists_show_the_callers_workspace_alone(api: Service, trained: FitResult, path: str) -> None:
    api.model(trained)
    stranger = api.caller(api.stage.workspace(), Scope.admin)
    mine = {item["id"] for item in api.admin.get(path).json()["items"]}
    theirs = {item["id"] for item in stranger.get(path).json()["items"]}
    assert mine
    assert not mine & theirs


def test_without_a_key_an_upload_is_refused_unread(shared: Service) -> None:
    size = {"Content-Length": str(2**40)}
    for path in ("/v1/datasets", filled("/v1/models/{model}/predict")):
        problem(shared.nobody.post(path, content=b"x", headers=size), 401, "unauthenticated")
