"""Resumable uploads against a real server of two processes: connections that break anywhere, a server that is killed.
What arrives is what was sent, and the dataset is that of a plain upload."""

import base64
import contextlib
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import httpx2
import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.datasets import service as datasets
from app.storage.configured import configured_store
from tests.support.images import REPOSITORY, folder_zip
from tests.support.servers import free_port, running
from tests.support.stages import Stage, Workspace

CUTS = 50
TUS = {"Tus-Resumable": "1.0.0"}
ARCHIVE = folder_zip({"ants": 6, "bees": 6}, size=(160, 160))
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


class Server:
    """`uvicorn --workers 2`, whose processes share a folder and a database and nothing else."""

    def __init__(self, stage: Stage, workspace: Workspace) -> None:
        self.stage, self.workspace = stage, workspace
        self.port = free_port()
        self.headers = {"Authorization": f"Bearer {list(workspace.secrets.values())[-1]}", **TUS}
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", headers=self.headers, timeout=60)

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "uvicorn", "app.api.app:create_app", "--factory", "--workers", "2"]
        home = self.stage.settings.home
        environment = os.environ | {"GRAFT_HOME": str(home), "OMP_NUM_THREADS": "1"}
        options = {"cwd": REPOSITORY, "env": environment}
        with running([*command, "--port", str(self.port)], home / "api.log", **options) as process:
            deadline = time.monotonic() + 120
            while True:
                try:
                    self.client.get("/healthz")
                    break
                except httpx2.TransportError:
                    assert process.poll() is None, (home / "api.log").read_text()
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield process

    def begin(self, name: str) -> str:
        said = ",".join(
            f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in (("name", name), ("sha256", SHA256))
        )
        answer = self.client.post("/v1/uploads", headers={"Upload-Length": str(len(ARCHIVE)), "Upload-Metadata": said})
        assert answer.status_code == 201, answer.text
        return str(answer.headers["location"])

    def offset(self, address: str) -> int:
        return int(self.client.head(address).headers["upload-offset"])

    def patch_head(self, address: str, offset: int) -> bytes:
        headers = self.headers | {
            "Host": "x",
            "Upload-Offset": str(offset),
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(len(ARCHIVE) - offset),
            "Expect": "100-continue",
        }
        lines = [f"PATCH {address} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def send_and_cut(self, address: str, offset: int, count: int) -> bool:
        """Promise the rest, send so many bytes of it once the server waits for them, and hang up. False if it does not
        want them: another process has not yet noticed that the sender before has gone."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(self.patch_head(address, offset))
            answer = connection.recv(1000)
            if not answer.startswith(b"HTTP/1.1 100 "):
                assert answer.startswith((b"HTTP/1.1 409 ", b"HTTP/1.1 423 ")), answer
                return False
            connection.sendall(ARCHIVE[offset : offset + count])
            return True

    def send_rest(self, address: str) -> str:
        """Go on until all is there, as a client does: ask for the offset, and again where another is still at work."""
        while True:
            offset = self.offset(address)
            connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
            headers = self.headers | {
                "Upload-Offset": str(offset),
                "Content-Type": "application/offset+octet-stream",
            }
            connection.request("PATCH", address, ARCHIVE[offset:], headers)
            answer = connection.getresponse()
            body = answer.read()
            connection.close()
            if answer.status == 204:
                return str(answer.headers["location"])
            assert answer.status in (409, 423), body

    def version(self, location: str) -> str:
        """The hash of the dataset's version, once it has been read."""
        self.stage.read_uploads()
        with self.stage.database.reading() as session:
            dataset = datasets.get(session, self.workspace.id, location.rpartition("/")[2])
            return datasets.latest_versions(session, [dataset.id])[dataset.id].manifest_sha256


@pytest.fixture
def server(settings: Settings, sqlite_url: str) -> Iterator[Server]:
    database = Database(sqlite_url)
    stage = Stage(settings, database, configured_store(settings))
    server = Server(stage, stage.workspace())
    yield server
    server.client.close()
    database.close()


def test_an_upload_survives_cuts_at_random_offsets_and_a_killed_server(server: Server) -> None:
    draw = random.Random(5)
    with server.started() as process:
        plain = server.client.post("/v1/datasets?name=plain", content=ARCHIVE)
        location = f"/v1/datasets/{plain.json()['id']}"
        address = server.begin("cut")
        cuts = 0
        while cuts < CUTS:
            offset = server.offset(address)
            # The rest has to last for the cuts to come; some break off before a byte of the body.
            count = draw.randrange(max(1, 2 * (len(ARCHIVE) - offset) // (CUTS - cuts + 2)))
            cuts += server.send_and_cut(address, offset, count)
        reached = server.offset(address)
        assert 0 < reached < len(ARCHIVE)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with server.started():
        assert server.offset(address) >= reached
        resumed = server.send_rest(address)
        upload = server.client.get(resumed).json()["upload"]
        assert (upload["sha256"], upload["bytes"]) == (SHA256, len(ARCHIVE))
        assert server.version(resumed) == server.version(location)
        assert list(server.stage.settings.uploads.iterdir()) == []
