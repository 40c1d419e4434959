"""`X-HTTP-Method-Override` lets a POST stand for PATCH or DELETE on the routes of tus; elsewhere it does nothing."""

import socket

import pytest

from app.auth.schemas import Scope
from tests.support.attacked import Attacked

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def begin(attacked: Attacked) -> str:
    made = attacked.ask("POST /v1/uploads", key=attacked.keys[Scope.write], Tus_Resumable="1.0.0", Upload_Length="10")
    assert made.status == 201, made
    return made.headers["location"]


def test_a_post_stands_for_patch_and_delete(attacked: Attacked) -> None:
    path, key = begin(attacked), attacked.keys[Scope.write]
    sent = attacked.ask(
        f"POST {path}",
        b"12345",
        key,
        X_HTTP_Method_Override="patch",
        Tus_Resumable="1.0.0",
        Upload_Offset="0",
        Content_Type="application/offset+octet-stream",
    )
    assert (sent.status, sent.headers["upload-offset"]) == (204, "5")
    ended = attacked.ask(f"POST {path}", key=key, X_HTTP_Method_Override="DELETE", Tus_Resumable="1.0.0")
    assert ended.status == 204
    assert attacked.ask(f"GET {path}", key=key).status == 404


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("override", [*METHODS, "TRACE", "x" * 100])
def test_nothing_else_is_overridden(attacked: Attacked, method: str, override: str) -> None:
    if method == "POST" and override in ("PATCH", "DELETE"):
        return
    heard = attacked.ask(f"{method} {begin(attacked)}", key=attacked.keys[Scope.write], X_HTTP_Method_Override=override)
    assert heard.status == 422, heard
    if method != "HEAD":
        assert heard.problem["code"] == "bad_override"


@pytest.mark.parametrize("path", ["/v1/datasets", "/v1/uploadsx", "/healthz"])
def test_other_routes_do_not_look_at_it(attacked: Attacked, path: str) -> None:
    key = attacked.keys[Scope.admin]
    plain = attacked.ask(f"GET {path}", key=key)
    assert attacked.ask(f"GET {path}", key=key, X_HTTP_Method_Override="DELETE").status == plain.status


@pytest.mark.parametrize("override", ["GET", "PATCH"])
def test_an_answer_to_head_has_no_body_on_the_wire(attacked: Attacked, override: str) -> None:
    """Whoever shares the connection would take it for the answer to the next request."""
    head = (
        f"HEAD /v1/uploads/x HTTP/1.1\r\nHost: x\r\nX-HTTP-Method-Override: {override}\r\n"
        f"Authorization: Bearer {attacked.keys[Scope.write]}\r\n\r\n"
    )
    following = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", attacked.port), timeout=30) as connection:
        connection.sendall((head + following).encode())
        received = b""
        while data := connection.recv(65536):
            received += data
    first, _, rest = received.partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 4")
    assert rest.startswith(b"HTTP/1.1 200")
    assert rest.endswith(b'{"status":"ok"}')
