"""The two ways to run Graftwork, as their users start them: real processes, real HTTP."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from subprocess import PIPE, Popen

import httpx2

from app.core.database import Database
from app.core.settings import Settings
from app.storage.configured import configured_store
from tests.support.images import REPOSITORY
from tests.support.servers import free_port, running
from tests.support.services import Service
from tests.support.stages import Stage

_numbers = count(1)
STARTS_WITHIN = 300.0  # seconds; only a test that fails waits so long
GRAFT = [sys.executable, "-m", "app.cli"]


def environment(home: Path, **more: str) -> dict[str, str]:
    """This process's environment with no Graftwork settings but these. No child waits for a job: few tests have as many
    jobs as it would cost."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
    fixed = {"GRAFT_HOME": str(home), "GRAFT_WEIGHTS_DOWNLOAD": "false", "GRAFT_WARM_CHILDREN": "false"}
    return {**ours, **fixed, **more}


@contextmanager
def embedded(home: Path, **settings: str) -> Iterator[Service]:
    """`graft up`: SQLite, local files, no broker."""
    home.mkdir(parents=True, exist_ok=True)
    variables = environment(home, **settings)
    log = home.with_suffix(".log")
    with running([*GRAFT, "up", "--port", "0"], log, env=variables, cwd=home) as process, _shown_if_failed(log):
        saved = _wait_for_client_file(home / "client.json", process, log)
        with _client(saved["url"], saved["key"]) as http:
            _wait_until_ready(http, process, log)
            with service_of(variables, saved["url"], saved["key"], http) as service:
                yield service


@contextmanager
def team(
    home: Path, database_url: str, redis_url: str, *, with_worker: bool = True, **settings: str
) -> Iterator[Service]:
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
        url = f"http://127.0.0.1:{port}"
        service = stack.enter_context(service_of(variables, url, key["secret"], http))
        if with_worker:
            stack.enter_context(celery_worker(service))
        yield service


@contextmanager
def service_of(variables: dict[str, str], url: str, key: str, http: httpx2.Client | None = None) -> Iterator[Service]:
    """Give the service whose processes have this environment; they are started and stopped elsewhere."""
    service = Service(parts_of(variables), http, url=url, key=key, environment=variables)
    try:
        yield service
    finally:
        service.close()


@contextmanager
def celery_worker(service: Service, says: str = "ready.", **settings: str) -> Iterator[Popen[bytes]]:
    """One more worker beside those that run, once it `says` that; `running` stops it with SIGTERM, as a deploy does."""
    log = service.home / f"worker-{next(_numbers)}.log"
    variables = service.environment | settings
    celery = [sys.executable, "-m", "celery", "-A", "worker.celery_app", "worker"]
    command = [*celery, "--pool=threads", "--concurrency=2", "--loglevel=info", "-n", f"{log.stem}@%h"]
    with running(command, log, env=variables, cwd=service.home) as worker, _shown_if_failed(log):
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


def parts_of(variables: dict[str, str]) -> Stage:
    """Return the parts of the service whose processes have this environment."""
    given = {name.removeprefix("GRAFT_").lower(): value for name, value in variables.items()}
    known = {name: value for name, value in given.items() if name in Settings.model_fields}
    settings = Settings(**known, _env_file=None)  # type: ignore[arg-type]
    return Stage(settings, Database(settings.sqlalchemy_url), configured_store(settings))


@contextmanager
def worker_process(home: Path) -> Iterator[Popen[bytes]]:
    """`python -m worker` beside a service in this process, stopped as an operator stops it."""
    variables = os.environ | {
        "GRAFT_HOME": str(home),
        "GRAFT_WEIGHTS_DOWNLOAD": "false",
        "GRAFT_HEARTBEAT_SECONDS": "0.3",
        "OMP_NUM_THREADS": "1",
    }
    with (home / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "worker", "--with-parent"]
        worker = Popen(command, cwd=REPOSITORY, env=variables, stdin=PIPE, stderr=log)
    try:
        yield worker
    finally:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait(60)
