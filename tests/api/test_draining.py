"""A server that is told to stop says so first, ends what would go on for ever, and then closes its listener."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.storage import FilesystemStore
from tests.support.images import REPOSITORY
from tests.support.servers import free_port
from tests.support.stages import Stage

PATIENCE = 60.0  # seconds, on a busy machine


@contextmanager
def api_process(home: Path, port: int, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """`graft api` in a process of its own, ready."""
    environment = os.environ | {"GRAFT_HOME": str(home), "GRAFT_WEIGHTS_DOWNLOAD": "false"} | settings
    command = [sys.executable, "-m", "app.cli", "api", "--port", str(port)]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
            until_true(lambda: answers(http) == 200)
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def answers(http: httpx2.Client) -> int:
    try:
        return http.get("/readyz").status_code
    except httpx2.TransportError:
        return 0


def until_true(look: Any) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def service(settings: Settings, sqlite_url: str, tmp_path: Path) -> tuple[Path, str, str]:
    """A home with a training that waits: the folder, a key, and the job's id."""
    database = Database(sqlite_url)
    stage = Stage(settings, database, FilesystemStore(tmp_path / "blobs"))
    workspace = stage.workspace()
    stage.dataset(workspace, "pets")
    job = stage.job(workspace, "pets")
    database.close()
    return tmp_path, next(iter(workspace.secrets.values())), str(job)


def test_it_drains_then_ends_streams_and_polls(service: tuple[Path, str, str]) -> None:
    home, key, job = service
    port = free_port()
    with api_process(home, port, GRAFT_DRAIN_SECONDS="3") as process:
        asking: dict[str, Any] = {"base_url": f"http://127.0.0.1:{port}", "headers": {"Authorization": f"Bearer {key}"}}
        ends: dict[str, Any] = {}

        def stream() -> None:
            with httpx2.Client(**asking, timeout=PATIENCE) as http, http.stream("GET", f"/v1/jobs/{job}/events") as got:
                ends["stream"] = list(got.iter_lines())

        def poll() -> None:
            with httpx2.Client(**asking, timeout=PATIENCE) as http:
                ends["poll"] = http.get(f"/v1/jobs/{job}", params={"wait": 60}).json()["state"]

        threads = [threading.Thread(target=one) for one in (stream, poll)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)  # both are being answered
        assert not ends
        process.send_signal(signal.SIGTERM)
        with httpx2.Client(**asking) as http:
            until_true(lambda: http.get("/readyz").status_code == 503)
            assert http.get("/readyz").json()["checks"]["process"] == "draining"
            assert http.get(f"/v1/jobs/{job}").status_code == 200  # what still comes is answered
        assert process.wait(PATIENCE) in (0, -signal.SIGTERM)
        for thread in threads:
            thread.join(PATIENCE)
        assert ends["poll"] == "queued"
        assert "retry: 1000" in ends["stream"]
        assert any("connect again" in line for line in ends["stream"])


def test_ctrl_c_does_not_wait(service: tuple[Path, str, str]) -> None:
    home, _, _ = service
    with api_process(home, free_port(), GRAFT_DRAIN_SECONDS="600") as process:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)


def test_a_second_sigterm_does_not_wait_either(service: tuple[Path, str, str]) -> None:
    home, _, _ = service
    port = free_port()
    with api_process(home, port, GRAFT_DRAIN_SECONDS="600") as process, httpx2.Client() as http:
        process.send_signal(signal.SIGTERM)
        until_true(lambda: http.get(f"http://127.0.0.1:{port}/readyz").status_code == 503)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
