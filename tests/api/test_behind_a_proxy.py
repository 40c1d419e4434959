"""Below a proxy's path callers find what was made, and pages of named origins may call from a browser."""

import hashlib
from pathlib import Path

import pytest

from app.cli import resumable
from app.cli.client import Client
from tests.support.calls import problem
from tests.support.images import folder_zip
from tests.support.resumable import TUS
from tests.support.services import OpenService, Service, open_service

ORIGIN = "https://app.example.org"


@pytest.mark.parametrize("stripped", [True, False])
def test_what_was_made_is_where_location_says(make_api: OpenService, stripped: bool) -> None:
    api = make_api(root_path="/graft")
    way = "" if stripped else "/graft"
    made = api.write.post(f"{way}/v1/datasets?name=pets", content=folder_zip({"ants": 2, "bees": 2}))
    assert made.status_code == 202
    assert made.headers["location"].startswith("/graft/v1/datasets/")
    assert api.read.get(made.headers["location"]).status_code == 200
    begun = api.write.post(f"{way}/v1/uploads", headers={**TUS, "Upload-Length": "5"})
    assert begun.headers["location"].startswith("/graft/v1/uploads/")
    head = api.write("HEAD", begun.headers["location"], headers=TUS)
    assert (head.status_code, head.headers["upload-offset"], head.headers["tus-resumable"]) == (200, "0", "1.0.0")
    assert "/graft/openapi.json" in api.nobody.get(f"{way}/docs").text
    problem(api.nobody.get(f"{way}/v1/jobs"), 401, "unauthenticated")


def test_the_command_uploads_through_a_path(settings: object, sqlite_url: str, tmp_path: Path) -> None:
    given = settings.model_copy(update={"root_path": "/graft"})  # type: ignore[attr-defined]
    with open_service(given, "socket") as service:
        client = Client(f"{service.url}/graft", service.key)
        archive = tmp_path / "pets.zip"
        archive.write_bytes(folder_zip({"ants": 2, "bees": 2}))
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        with archive.open("rb") as file:
            made = resumable.send(client, file, archive.stat().st_size, digest, {"name": "pets"})
        assert made["name"] == "pets"
        client.close()


def test_named_origins_may_call_and_others_may_not(make_api: OpenService) -> None:
    api = make_api(cors_origins=f"https://other.example, {ORIGIN}")
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PATCH"}
    for path in ("/v1/jobs", "/v1/uploads/any"):  # before it has a key to send
        wanted = {"Access-Control-Request-Headers": "authorization,tus-resumable,upload-offset"}
        allowed = api.nobody("OPTIONS", path, headers=asked | wanted)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "upload-offset" in allowed.headers["access-control-allow-headers"]
    answer = api.read.get("/v1/jobs", headers={"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "Location" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    refused = api.read.get("/v1/jobs", headers={"Origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in refused.headers
    without_key = api.nobody.get("/v1/jobs", headers={"Origin": ORIGIN})
    assert without_key.status_code == 401
    assert without_key.headers["access-control-allow-origin"] == ORIGIN  # so that the page can read why


def test_no_origin_may_call_unless_it_is_named(api: Service) -> None:
    answer = api.read.get("/v1/jobs", headers={"Origin": ORIGIN})
    assert "access-control-allow-origin" not in answer.headers
