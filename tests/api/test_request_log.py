"""Each request is one structured line in the log, with who asked and what came of it."""

import json
import uuid
from typing import Any

import pytest

from app.core.ids import new_id
from tests.support.services import OpenService


def lines(captured: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in captured.splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == "request"]


def test_a_line_says_who_asked_for_what_and_what_came_of_it(
    make_api: OpenService, capsys: pytest.CaptureFixture[str]
) -> None:
    api = make_api(log_format="json")
    capsys.readouterr()
    job = new_id()
    assert api.read.get("/v1/jobs", headers={"X-Request-Id": "mine"}).status_code == 200
    assert api.read.get(f"/v1/jobs/{job}").status_code == 404
    assert api.nobody.get("/v1/jobs").status_code == 401
    assert api.nobody.get("/healthz").status_code == 200  # asked every few seconds: no line
    assert api.nobody.get("/no/such/path").status_code in (401, 404)
    listed, missing, unknown, nowhere = lines(capsys.readouterr().err)
    assert (listed["method"], listed["route"], listed["status"], listed["request_id"]) == (
        *("GET", "/v1/jobs", 200),
        "mine",
    )
    assert listed["workspace"] == str(api.workspace.id)
    assert uuid.UUID(listed["key"])
    assert listed["bytes"] > 0
    assert listed["ms"] > 0
    assert (missing["route"], missing["status"]) == ("/v1/jobs/{job_id}", 404)
    assert str(job) not in json.dumps(missing)
    assert (unknown["status"], unknown["workspace"], unknown["key"]) == (401, None, None)
    assert nowhere["route"] is None


def test_a_terminal_is_not_flooded_unless_it_is_asked_for(
    make_api: OpenService, capsys: pytest.CaptureFixture[str]
) -> None:
    api = make_api()
    assert api.read.get("/v1/jobs").status_code == 200
    assert "request " not in capsys.readouterr().err
