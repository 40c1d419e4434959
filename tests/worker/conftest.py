"""A stage with a database of its own, and workers on it with real child processes."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.jobs.orm import Checkpoint, EpochMetrics, Job
from app.jobs.states import TERMINAL, JobState
from app.storage.configured import configured_store
from tests.support.stages import Stage, Workspace
from worker.supervision.worker import Worker

LONG = 12  # epochs of a training that something happens to half-way
PATIENCE = 600.0  # seconds after which a test gives up; none passes because of it


class Site:
    """A service without its API: a stage, a workspace with the dataset `pets`, and a worker that a test may start."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.workspace: Workspace = stage.workspace()
        self.workers: list[Worker] = []
        stage.dataset(self.workspace, "pets")

    def start(self, **changed: Any) -> Worker:
        """A worker with the site's settings, but for those `changed`; no child waits for a job, which would cost more
        than most tests do."""
        settings = self.stage.settings.model_copy(update={"warm_children": False} | changed)
        worker = Worker(settings, settings.poll_seconds)
        worker.start()
        self.workers.append(worker)
        return worker

    def stop(self, worker: Worker) -> None:
        worker.stop()
        self.workers.remove(worker)

    def close(self) -> None:
        for worker in list(self.workers):
            self.stop(worker)
        self.stage.database.close()

    def train(self, **fields: Any) -> UUID:
        return self.stage.job(self.workspace, "pets", **fields)

    def train_long(self, **fields: Any) -> UUID:
        """A training of some seconds, the same each time."""
        same = {"train": "all", "augmentation": "none", "epochs": LONG, "batch_size": 8, "seed": 5}
        return self.train(**same | fields)

    def train_for_ever(self, **fields: Any) -> UUID:
        """A training that no test waits for to end: very many quick epochs."""
        return self.train(epochs=10_000, head={"hidden": [1024, 1024]}, **fields)

    def job(self, job_id: UUID) -> Job:
        with self.stage.database.reading() as session:
            return session.get_one(Job, job_id)

    def rows(self, table: type[Checkpoint] | type[EpochMetrics], job_id: UUID) -> list[Any]:
        with self.stage.database.reading() as session:
            return session.query(table).filter_by(job_id=job_id).all()

    def until(self, job_id: UUID, *states: JobState) -> Job:
        """The job once it is in one of these states. Fails at once if it ended in another."""

        def arrived() -> Job | None:
            job = self.job(job_id)
            if job.state in states:
                return job
            assert job.state not in TERMINAL, (job.state, job.failure)
            return None

        return wait_for(arrived)

    def until_training(self, job_id: UUID) -> Job:
        """The job once an epoch of it lies behind."""
        wait_for(lambda: self.rows(EpochMetrics, job_id))
        return self.job(job_id)

    def scratch(self) -> list[str]:
        folder = self.stage.settings.scratch
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def wait_for(look: Callable[[], Any]) -> Any:
    """What `look` gives once it gives something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)  # a look may be a query, and the processors are wanted
    raise AssertionError("it did not come true")


def children(kind: str, parent: int) -> list[int]:
    """The process ids of a worker's children that compute jobs of this kind."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended since
            continue
        if b"worker.child" in arguments and kind.encode() in arguments and int(fields[1]) == parent:
            found.append(int(folder.name))
    return found


def group_is_gone(group: int) -> bool:
    """Whether no process of that group lives. One that is dead and not yet waited for does not count."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, member_of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(member_of) == group and state not in "ZX":
            return False
    return True


@pytest.fixture
def worker_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children read the settings from the environment, as those of a real worker do."""
    _set(monkeypatch, tmp_path)


def _set(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(home))
    monkeypatch.setenv("GRAFT_WEIGHTS_DOWNLOAD", "false")
    # Threads that wait for each other are slow out of all proportion where others want the processors too.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def site(worker_environment: None, sqlite_url: str, tmp_path: Path) -> Iterator[Site]:
    settings = Settings(
        home=tmp_path, weights_download=False, poll_seconds=0.2, heartbeat_seconds=0.2, max_attempts=2, _env_file=None
    )  # type: ignore[call-arg]
    site = Site(Stage(settings, Database(sqlite_url), configured_store(settings)))
    yield site
    site.close()


@pytest.fixture(scope="session")
def undisturbed(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `train_long` comes to when nothing gets in its way."""
    home = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    with pytest.MonkeyPatch.context() as patch:
        _set(patch, home)
        settings = Settings(home=home, weights_download=False, poll_seconds=0.2, _env_file=None)  # type: ignore[call-arg]
        site = Site(Stage(settings, Database(settings.sqlalchemy_url), configured_store(settings)))
        try:
            site.start()
            job_id = site.train_long()
            site.until(job_id, JobState.succeeded)
            wait_for(lambda: site.scratch() == [])
        finally:
            site.close()
        site.stage.database.close()
        return {"artefact": artefact(site, job_id), "job": site.job(job_id)}


def artefact(site: Site, job_id: UUID) -> str:
    """The SHA-256 of the model that the job made."""
    from app.registry.orm import Model

    with site.stage.database.reading() as session:
        return session.query(Model).filter_by(job_id=job_id).one().artefact_sha256
