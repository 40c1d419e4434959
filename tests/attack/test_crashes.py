"""A fault of the service's own is answered with an id that stands in the header, the body and the line of the log."""

import json
from collections.abc import AsyncIterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException

import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from app.api.app import create_app
from app.api.routes import Route
from app.core.settings import Settings
from tests.support.services import open_service

router = APIRouter(prefix="/v1/crash", route_class=Route)


@router.get("")
async def crash() -> None:
    raise ZeroDivisionError("a secret that no caller should see")


@router.get("/later")
async def crash_later() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a beginning"
        raise ZeroDivisionError("a secret that no caller should see")

    return StreamingResponse(chunks())


@pytest.mark.parametrize("given", [None, "my-own-id"])
def test_a_crash_has_its_id_everywhere(
    settings: Settings, sqlite_url: str, capsys: pytest.CaptureFixture[str], given: str | None
) -> None:
    settings = settings.model_copy(update={"log_format": "json"})
    app = create_app(settings)
    app.include_router(router)
    with open_service(settings, "socket", app) as service:
        headers, port = service.read.headers, service.port
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/v1/crash", headers=headers | ({"X-Request-Id": given} if given else {}))
            answer = connection.getresponse()
            body = json.loads(answer.read())
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/v1/crash/later", headers=headers)
            broken = connection.getresponse()
            with pytest.raises(HTTPException):
                broken.read()
    assert (answer.status, answer.headers["content-type"]) == (500, "application/problem+json")
    assert body["code"] == "internal"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert given in (None, body["request_id"])
    assert body["request_id"] in body["detail"]
    assert "secret" not in json.dumps(body)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    (crashed,) = [line for line in lines if line["event"] == "request_crashed" and line["path"] == "/v1/crash"]
    assert crashed["request_id"] == body["request_id"]
    assert "ZeroDivisionError" in crashed["exception"]
    later = [line for line in lines if line.get("path") == "/v1/crash/later"]
    assert [line["request_id"] for line in later] == [broken.headers["x-request-id"]]
