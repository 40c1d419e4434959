"""A service without an API on a database of its own, and workers in it with real child processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.settings import Settings
from app.jobs.states import JobState
from tests.support.services import Service, open_service
from tests.support.waiting import wait_for


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
def site(worker_environment: None, sqlite_url: str, tmp_path: Path) -> Iterator[Service]:
    settings = Settings(
        home=tmp_path,
        weights_download=False,
        poll_seconds=0.2,
        heartbeat_seconds=0.2,
        max_attempts=2,
        stop_grace_seconds=120.0,  # no timing decides: on a busy machine a child needs some to stop at a step
        _env_file=None,
    )  # type: ignore[call-arg]
    with open_service(settings, "none") as service:
        service.dataset("pets")
        yield service


@pytest.fixture(scope="session")
def undisturbed(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `train_long` comes to when nothing gets in its way."""
    home = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    with pytest.MonkeyPatch.context() as patch:
        _set(patch, home)
        settings = Settings(home=home, weights_download=False, poll_seconds=0.2, _env_file=None)  # type: ignore[call-arg]
        with open_service(settings, "none") as service:
            service.dataset("pets")
            service.start_worker()
            job_id = service.train_long()
            job = service.until(job_id, JobState.succeeded)
            wait_for(lambda: service.scratch() == [])
            return {"artefact": service.artefact(job_id), "job": job}
