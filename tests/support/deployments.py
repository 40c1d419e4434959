"""The two ways to run Graftwork, as their users start them: real processes, real HTTP."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx2

from tests.support.servers import free_port, running

_numbers = count(1)
STARTS_WITHIN = 300.0  # seconds; only a test that fails waits so long
ENDS_WITHIN = 900.0
GRAFT = [sys.executable, "-m", "app.cli"]


@dataclass(frozen=True)
class Deployment:
    """A running service: how to call it, where its logs are, the environment its commands need."""

    http: httpx2.Client
    url: str
    key: str
    home: Path
    environment: dict[str, str]

    def wait(self, path: str, field: str, *unfinished: str | None) -> dict[str, Any]:
        """The resource at `path`, once `field` is none of `unfinished`."""
        deadline = time.monotonic() + ENDS_WITHIN
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.http.get(path, params={"wait": 30}).raise_for_status().json()
            if found[field] not in unfinished:
                return found
        raise AssertionError(f"{path} is not done after {ENDS_WITHIN} s: {found}")

    def wait_for_dataset(self, reference: str) -> dict[str, Any]:
        return self.wait(f"/v1/datasets/{reference}", "state", "processing")

    def wait_for_job(self, job_id: str) -> dict[str, Any]:
        return self.wait(f"/v1/jobs/{job_id}", "finished_at", None)


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment with no Graftwork settings but these. No child waits for a job: few tests have as many
    jobs as it would cost."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
    fixed = {"GRAFT_HOME": str(home), "GRAFT_WEIGHTS_DOWNLOAD": "false", "GRAFT_WARM_CHILDREN": "false"}
    return {**ours, **fixed, **more}


@contextmanager
def embedded(home: Path, **settings: str) -> Iterator[Deployment]:
    """`graft up`: SQLite, local files, no broker."""
    home.mkdir(parents=True, exist_ok=True)
    variables = environment(home, **settings)
    log = home.with_suffix(".log")
    with running([*GRAFT, "up", "--port", "0"], log, env=variables, cwd=home) as process, _shown_if_failed(log):
        saved = _wait_for_client_file(home / "client.json", process, log)
        with _client(saved["url"], saved["key"]) as http:
            _wait_until_ready(http, process, log)
            yield Deployment(http, saved["url"], saved["key"], home, variables)


@contextmanager
def team(
    home: Path, database_url: str, redis_url: str, *, with_worker: bool = True, **settings: str
) -> Iterator[Deployment]:
    """uvicorn, `celery worker`, PostgreSQL, Redis; the worker's own polling is off, so that only rings start jobs."""
    home.mkdir(parents=True, exist_ok=True)
    broker = {"GRAFT_REDIS_URL": redis_url, "GRAFT_BROKER_POLL_SECONDS": "86400"}
    variables = environment(home, GRAFT_DATABASE_URL=database_url, **{**broker, **settings})
    port = free_port()
    _run([*GRAFT, "migrate"], variables, home)
    key = json.loads(_run([*GRAFT, "keys", "create", "ci", "--scope", "admin", "--direct", "--json"], variables, home))
    log = home / "api.log"
    with ExitStack() as stack:
        api = stack.enter_context(running([*GRAFT, "api", "--port", str(port)], log, env=variables, cwd=home))
        stack.enter_context(_shown_if_failed(log))
        http = stack.enter_context(_client(f"http://127.0.0.1:{port}", key["secret"]))
        _wait_until_ready(http, api, log)
        deployment = Deployment(http, f"http://127.0.0.1:{port}", key["secret"], home, variables)
        if with_worker:
            stack.enter_context(celery_worker(deployment))
        yield deployment


@contextmanager
def celery_worker(deployment: Deployment, says: str = "ready.") -> Iterator[Popen[bytes]]:
    """One more worker beside those that run, once it `says` that; `running` stops it with SIGTERM, as a deploy does."""
    log = deployment.home / f"worker-{next(_numbers)}.log"
    celery = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker"]
    command = [*celery, "--pool=threads", "--concurrency=2", "--loglevel=info", "-n", f"{log.stem}@%h"]
    with running(command, log, env=deployment.environment, cwd=deployment.home) as worker, _shown_if_failed(log):
        _wait_for_text(log, says, worker)
        yield worker


def _client(url: str, key: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=120)


def _run(command: list[str], variables: dict[str, str], folder: Path) -> str:
    from subprocess import run

    return run(command, env=variables, cwd=folder, check=True, capture_output=True, text=True).stdout


@contextmanager
def _shown_if_failed(log: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        print(f"--- {log.name} ---\n{log.read_text()[-6000:]}")
        raise


def _wait_for_client_file(path: Path, process: Popen[bytes], log: Path) -> dict[str, str]:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            saved: dict[str, str] = json.loads(path.read_text())
            return saved
        time.sleep(0.05)
    raise AssertionError(f"the service did not start: {log.read_text()[-2000:]}")


def _wait_until_ready(http: httpx2.Client, process: Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx2.TransportError):
            if http.get("/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"the service is not ready: {log.read_text()[-2000:]}")


def _wait_for_text(log: Path, text: str, process: Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        if text in log.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"the worker did not start: {log.read_text()[-2000:]}")
