"""A running Graftwork as tests need it, however it runs: a workspace in it, a caller for each scope, and workers.

`open_service` runs one in this process; `tests.support.deployments` runs the processes that users start.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from app.auth.schemas import Scope
from app.core.database import Database
from app.core.settings import Settings
from app.jobs.orm import Checkpoint, EpochMetrics, Job
from app.jobs.states import TERMINAL, JobState
from app.jobs.types import KNOWN, JobTypes
from app.registry.orm import Model
from app.storage.configured import configured_store
from tests.support.calls import CLASSES, Caller
from tests.support.stages import Stage, Workspace
from tests.support.waiting import PATIENCE, wait_for

LONG = 12  # epochs of a training that something happens to half-way

# How callers reach it: not at all, by calls into the application, or over a socket of a real server.
Reach = Literal["none", "asgi", "socket"]


class Service:
    """One service that runs. `http` is a client of its API, at `url` where it has an address.

    With a `key`, which is then good for everything, all callers have that one; without, a workspace is made with a key
    for each scope. `environment` is that of its processes and of commands that ask it.
    """

    def __init__(
        self, stage: Stage, http: Any = None, *, url: str = "", key: str = "", environment: dict[str, str] | None = None
    ) -> None:
        self.stage, self.http, self.url = stage, http, url
        self.environment = environment or {}
        self.workers: list[Any] = []
        self.workspace = Workspace(UUID(int=0), dict.fromkeys(Scope, key)) if key else stage.workspace()
        self.key = self.workspace.secrets[Scope.admin]
        self.read, self.predict, self.write, self.admin = (
            self.caller(self.workspace, scope) for scope in (Scope.read, Scope.predict, Scope.write, Scope.admin)
        )
        self.nobody = Caller(http, None)

    def beside(self) -> "Service":
        """Return the same service with a workspace of its own."""
        return Service(self.stage, self.http, url=self.url, environment=self.environment)

    @property
    def settings(self) -> Settings:
        return self.stage.settings

    @property
    def database(self) -> Database:
        return self.stage.database

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def caller(self, workspace: Workspace, scope: Scope) -> Caller:
        return Caller(self.http, workspace.secrets[scope])

    # What is in it before the test begins.

    def dataset(self, name: str = "pets", archive: bytes | None = None) -> str:
        """Return the id of a dataset that is ready."""
        return str(self.stage.dataset(self.workspace, name, archive))

    def training(self, dataset: str = "pets", **fields: Any) -> str:
        """Return the id, as callers write it, of a training that waits."""
        return str(self.train(dataset, **fields))

    def train(self, dataset: str = "pets", **fields: Any) -> UUID:
        """Return the id of a training that waits."""
        return self.stage.job(self.workspace, dataset, **fields)

    def train_long(self, **fields: Any) -> UUID:
        """Return the id of a training of some seconds, the same each time."""
        same = {"train": "all", "augmentation": "none", "epochs": LONG, "batch_size": 8, "seed": 5}
        return self.train(**same | fields)

    def train_for_ever(self, **fields: Any) -> UUID:
        """Return the id of a training that no test waits for to end: very many quick epochs."""
        return self.train(epochs=10_000, head={"hidden": [1024, 1024]}, **fields)

    def model(self, trained: Any, name: str = "pets") -> str:
        """Return the id of a model; the dataset `name` is made if it is not there."""
        if self.read.get(f"/v1/datasets/{name}").status_code == 404:
            self.dataset(name)
        self.train(name)
        job = self.stage.claim("train")
        assert job is not None
        return str(self.stage.finish(job, trained, CLASSES))

    # Workers in this process, whose children are real.

    def start_worker(self, kinds: JobTypes = KNOWN, **changed: Any) -> Any:
        """Start and return a worker for jobs of these kinds with the service's settings, but for those `changed`.

        No child waits for a job, which would cost more than most tests do.
        """
        from worker.supervision.worker import Worker  # not for those who only call

        settings = self.settings.model_copy(update={"warm_children": False} | changed)
        worker = Worker(settings, settings.poll_seconds, kinds=kinds)
        worker.start()
        self.workers.append(worker)
        return worker

    def stop_worker(self, worker: Any) -> None:
        worker.stop()
        self.workers.remove(worker)

    def close(self) -> None:
        for worker in list(self.workers):
            self.stop_worker(worker)
        self.database.close()

    # What has become of it.

    def job(self, job_id: UUID) -> Job:
        with self.database.reading() as session:
            return session.get_one(Job, job_id)

    def rows(self, table: type[Checkpoint] | type[EpochMetrics], job_id: UUID) -> list[Any]:
        with self.database.reading() as session:
            return session.query(table).filter_by(job_id=job_id).all()

    def until(self, job_id: UUID, *states: JobState) -> Job:
        """Return the job once it is in one of these states. Fail at once if it ended in another."""

        def arrived() -> Job | None:
            job = self.job(job_id)
            if job.state in states:
                return job
            assert job.state not in TERMINAL, (job.state, job.failure)
            return None

        found: Job = wait_for(arrived)
        return found

    def until_training(self, job_id: UUID) -> Job:
        """Return the job once an epoch of it lies behind."""
        wait_for(lambda: self.rows(EpochMetrics, job_id))
        return self.job(job_id)

    def artefact(self, job_id: UUID) -> str:
        """Return the SHA-256 of the model that the job made."""
        with self.database.reading() as session:
            return session.query(Model).filter_by(job_id=job_id).one().artefact_sha256

    def scratch(self) -> list[str]:
        """Return the names of what lies in the scratch folder."""
        folder = self.settings.scratch
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    def counts(self) -> dict[str, int]:
        """Return how many datasets, jobs of both kinds and models callers see."""
        paths = {
            "datasets": "/v1/datasets",
            "trainings": "/v1/jobs",
            "ingestions": "/v1/jobs?kind=ingest",
            "models": "/v1/models",
        }
        return {name: len(self.read.get(path).json()["items"]) for name, path in paths.items()}

    # The same, asked over HTTP.

    def wait(self, path: str, field: str, *unfinished: str | None) -> dict[str, Any]:
        """Return the resource at `path`, once `field` is none of `unfinished`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.http.get(path, params={"wait": 30}).raise_for_status().json()
            if found[field] not in unfinished:
                return found
        raise AssertionError(f"{path} is not done after {PATIENCE} s: {json.dumps(found)}")

    def wait_for_dataset(self, reference: str) -> dict[str, Any]:
        return self.wait(f"/v1/datasets/{reference}", "state", "processing")

    def wait_for_job(self, job_id: str) -> dict[str, Any]:
        return self.wait(f"/v1/jobs/{job_id}", "finished_at", None)


OpenService = Callable[..., Service]


@contextmanager
def open_service(settings: Settings, reach: Reach = "asgi", app: Any = None) -> Iterator[Service]:
    """Run a service in this process, on a database that is migrated; its workers are stopped at the end.

    `app` is the application where a test makes its own.
    """
    with ExitStack() as stack:
        if reach == "none":
            service = Service(_parts(settings))
        elif reach == "asgi":
            from starlette.testclient import TestClient

            from app.api.app import create_app

            # A crash is an answer to its caller, as it is behind a real server, and no exception in the test.
            http = stack.enter_context(TestClient(app or create_app(settings), raise_server_exceptions=False))
            services = http.app.state.services  # type: ignore[attr-defined]
            service = Service(Stage(settings, services.database, services.store), http)
        else:
            import httpx2

            url = f"http://127.0.0.1:{stack.enter_context(_listening(settings, app))}"
            http = stack.enter_context(httpx2.Client(base_url=url, timeout=120))
            service = Service(_parts(settings), http, url=url)
        stack.callback(service.close)
        yield service


def _parts(settings: Settings) -> Stage:
    return Stage(settings, Database(settings.sqlalchemy_url), configured_store(settings))


@contextmanager
def _listening(settings: Settings, app: Any) -> Iterator[int]:
    """Run the application behind a real server: its port."""
    import uvicorn

    from app.api.app import create_app

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
