"""Real applications over real ASGI: one of a test's own, and one for all tests with a real worker beside it."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.api.app import create_app
from app.api.predict_path.kept import Shortcuts
from app.core.settings import Settings
from app.vision.training.run import FitResult
from tests.support.calls import CLASSES, Api
from tests.support.images import REPOSITORY
from tests.support.stages import Stage, train_tiny

MakeApi = Callable[..., Api]


@contextmanager
def open_api(settings: Settings, shortcuts: Shortcuts | None = None) -> Iterator[Api]:
    # A crash is an answer to its caller, as it is behind a real server, and no exception in the test.
    with TestClient(create_app(settings, shortcuts), raise_server_exceptions=False) as client:
        services = client.app.state.services  # type: ignore[attr-defined]
        yield Api(client, Stage(settings, services.database, services.store))


@contextmanager
def served(settings: Settings, app: FastAPI | None = None) -> Iterator[int]:
    """The service, or a test's own variant of it, behind a real server: its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app or create_app(settings), log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(60)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture
def make_api(settings: Settings, sqlite_url: str) -> Iterator[MakeApi]:
    """Makes this test's service; keywords are settings, and `shortcuts` those of its predict calls."""
    with ExitStack() as stack:

        def make(shortcuts: Shortcuts | None = None, **given: Any) -> Api:
            return stack.enter_context(open_api(settings.model_copy(update=given), shortcuts))

        yield make


@pytest.fixture
def api(make_api: MakeApi) -> Api:
    """A service of this test's own, with nobody who works."""
    return make_api()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A model that tells ants from bees."""
    return train_tiny(tmp_path_factory.mktemp("trained"), CLASSES)


@pytest.fixture
def model_id(api: Api, trained: FitResult) -> str:
    return api.model(trained)


@pytest.fixture(scope="session")
def shared(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """One service for all tests that leave no datasets or jobs behind."""
    home = tmp_path_factory.mktemp("shared")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    with open_api(Settings(home=home, weights_download=False, engines="torch", _env_file=None)) as found:  # type: ignore[call-arg]
        yield found


@contextmanager
def worker_process(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m worker`, stopped as an operator stops it."""
    environment: dict[str, Any] = os.environ | {
        "GRAFT_HOME": str(home),
        "GRAFT_WEIGHTS_DOWNLOAD": "false",
        "GRAFT_HEARTBEAT_SECONDS": "0.3",
        "OMP_NUM_THREADS": "1",
    }
    with (home / "worker.log").open("ab") as log:
        command = [sys.executable, "-m", "worker", "--with-parent"]
        worker = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stderr=log)
    try:
        yield worker
    finally:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait(60)


@pytest.fixture(scope="session")
def worked(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Api]]:
    """Gives workspaces in one service that has a worker."""
    home = tmp_path_factory.mktemp("worked")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    settings = Settings(home=home, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
    with open_api(settings) as first, worker_process(home):
        yield lambda: Api(first.client, first.stage)


@pytest.fixture
def working(worked: Callable[[], Api]) -> Api:
    """A workspace of this test's own in a service that has a worker."""
    return worked()
