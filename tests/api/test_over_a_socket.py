"""What only a real server and a real connection can show: bodies without a length, and callers who hang up."""

import hashlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from app.core.settings import Settings
from tests.support.images import folder_zip
from tests.support.services import Service, open_service
from tests.support.waiting import wait_for

LIMIT = 200_000


@pytest.fixture
def server(settings: Settings, sqlite_url: str) -> Iterator[Service]:
    with open_service(settings.model_copy(update={"max_upload_bytes": LIMIT}), "socket") as service:
        yield service


def send(server: Service, chunks: Iterator[bytes]) -> tuple[int, str | None, dict[str, object]]:
    """Upload in chunks, without a Content-Length: status, content type and body of the answer."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("POST", "/v1/datasets?name=pets", chunks, server.admin.headers, encode_chunked=True)
        response = connection.getresponse()
        return response.status, response.headers["content-type"], json.loads(response.read())


def pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 8192):
        yield data[start : start + 8192]


def test_an_upload_without_a_length_is_taken(server: Service) -> None:
    status, _, body = send(server, pieces(folder_zip({"ants": 4, "bees": 4})))
    assert (status, body["state"]) == (202, "processing")
    assert server.scratch() == []


def test_an_upload_without_a_length_is_refused_when_it_passes_the_limit(server: Service) -> None:
    status, kind, body = send(server, pieces(b"x" * (LIMIT + 1)))
    assert (status, kind, body["code"]) == (413, "application/problem+json", "too_large")
    assert "GRAFT_MAX_UPLOAD_BYTES" in str(body["detail"])
    assert server.scratch() == []


def test_an_upload_that_breaks_off_leaves_nothing(server: Service) -> None:
    head = "".join(f"{name}: {value}\r\n" for name, value in server.admin.headers.items())
    request = f"POST /v1/datasets?name=pets HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 100000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(request.encode() + b"x" * 50_000)
        wait_for(lambda: server.scratch() != [])  # it is being received
    wait_for(lambda: server.scratch() == [])
    status, _, _ = send(server, pieces(folder_zip({"ants": 4, "bees": 4})))
    assert status == 202  # the name is free, and the service at work


@pytest.fixture
def impatient(settings: Settings, sqlite_url: str) -> Iterator[Service]:
    with open_service(settings.model_copy(update={"upload_silence_seconds": 0.3}), "socket") as service:
        yield service


def test_a_sender_that_falls_silent_is_left_and_what_came_is_kept(impatient: Service) -> None:
    server = impatient
    headers = {**server.admin.headers, "Tus-Resumable": "1.0.0"}

    def call(method: str, path: str, **more: str) -> tuple[int, dict[str, str]]:
        with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
            connection.request(method, path, headers=headers | {k.replace("_", "-"): v for k, v in more.items()})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    status, made = call("POST", "/v1/uploads", Upload_Length="100000")
    assert status == 201
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = (
        f"PATCH {made['location']} HTTP/1.1\r\nHost: x\r\n{head}Upload-Offset: 0\r\n"
        "Content-Type: application/offset+octet-stream\r\nContent-Length: 100000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
        silent.sendall(request.encode() + b"x" * 50_000)
        assert silent.recv(100).startswith(b"HTTP/1.1 400 ")  # and says no more
        assert call("HEAD", made["location"])[1]["upload-offset"] == "50000"
        status, _ = call(
            "PATCH", made["location"], Upload_Offset="50000", Content_Type="application/offset+octet-stream"
        )
        assert status == 204  # nobody holds it


# In a process of its own, for it leaves its sockets to the garbage collector.
TUSPY = """
import sys
from tusclient.client import TusClient
url, path, authorization, sha256 = sys.argv[1:]
client = TusClient(url, headers={"Authorization": authorization})
said = {"filename": "pets.zip", "sha256": sha256, "filetype": "application/zip"}
first = client.uploader(path, chunk_size=10_000, metadata=said, upload_checksum=True)
first.upload_chunk()
again = client.uploader(path, chunk_size=20_000, url=first.url, upload_checksum=True)
assert again.offset == 10_000
again.upload()
"""


def test_a_client_that_is_not_ours_uploads_in_pieces(server: Service, tmp_path: Path) -> None:
    archive = folder_zip({"ants": 4, "bees": 4})
    sha256 = hashlib.sha256(archive).hexdigest()
    path = tmp_path / "pets.zip"
    path.write_bytes(archive)
    arguments = f"http://127.0.0.1:{server.port}/v1/uploads", str(path), server.admin.headers["Authorization"], sha256
    done = subprocess.run([sys.executable, "-c", TUSPY, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", "/v1/datasets/pets", headers=server.admin.headers)
        assert json.loads(connection.getresponse().read())["upload"]["sha256"] == sha256
