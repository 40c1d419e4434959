"""Headers past what is kept, names that are no UTF-8, bodies that break off: an answer, and no traceback in the log."""

import json
import socket
import time

import pytest

from app.auth.schemas import Scope
from tests.support.attacked import Attacked
from tests.support.images import folder_zip

NOTHING = "/v1/jobs/0190a0a0-0000-7000-8000-000000000000/events"


@pytest.mark.parametrize("given", [str(2**63), str(2**64), "9" * 4000, "-1", "x"])
def test_an_event_id_that_no_event_has_is_refused_before_the_stream_begins(attacked: Attacked, given: str) -> None:
    with attacked.stays_small():
        heard = attacked.ask(f"GET {NOTHING}", key=attacked.keys[Scope.read], Last_Event_ID=given)
    assert heard.status in (404, 422), heard


def form(name: bytes, content: bytes, kind: bytes = b"application/zip") -> bytes:
    head = b'--line\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\nContent-Type: ' + kind
    return head + b"\r\n\r\n" + content + b"\r\n--line--\r\n"


@pytest.mark.parametrize("name", ["caf\xe9.zip".encode("latin-1"), b"\xff\xfe.zip", b"\x80" * 50, b"%ff.zip", b""])
def test_a_file_name_that_is_no_utf8_is_no_crash(attacked: Attacked, name: bytes) -> None:
    key, kind = attacked.keys[Scope.write], "multipart/form-data; boundary=line"
    with attacked.stays_small():
        content = folder_zip({"ants": 2, "bees": 2})
        archive = form(name, content)
        heard = attacked.ask("POST /v1/datasets", archive, key, Content_Type=kind)
        if not name.isascii():
            assert (heard.status, heard.problem["code"]) == (400, "malformed")
            heard = attacked.ask("POST /v1/datasets", form(b"plain.zip", content), key, Content_Type=kind)
        assert heard.status == 202, heard.body
        path = f"/v1/datasets/{heard.problem['id']}"
        images = attacked.ask(f"POST {path}/images?label=x", form(name, b"x", b"image/jpeg"), key, Content_Type=kind)
        assert images.status < 500, images.body
        sent = attacked.ask("POST /v1/models/nothing/predict", form(name, b"x"), key, Content_Type=kind)
        assert sent.status == 404, sent.body
        assert attacked.ask(f"DELETE {path}", key=key).status < 500


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("POST /v1/jobs", "application/json"),
        ("POST /v1/datasets", "application/zip"),
        ("POST /v1/datasets", "multipart/form-data; boundary=line"),
        ("PUT /v1/datasets/cut.zip", "application/zip"),
        ("POST /v1/datasets:import", "application/json"),
        ("POST /v1/keys", "application/json"),
        ("POST /v1/models/nothing/predict", "image/jpeg"),
        ("POST /v2/models/nothing/infer", "application/json"),
    ],
)
def test_a_body_that_breaks_off_is_one_line_in_the_log(attacked: Attacked, head: str, kind: str) -> None:
    text = (
        f"{head} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {attacked.keys[Scope.admin]}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
    )
    with attacked.stays_small():
        for body in (b"", b'{"a":', b"--line\r\nContent-Dis"):
            with socket.create_connection(("127.0.0.1", attacked.port), timeout=30) as connection:
                connection.sendall(text.encode() + body)
                time.sleep(0.1)  # so that it is being read
        time.sleep(0.3)


def test_a_line_of_the_log_is_json(attacked: Attacked) -> None:
    for line in attacked.log.read_text().splitlines():
        assert isinstance(json.loads(line), dict)
