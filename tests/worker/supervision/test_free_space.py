"""A disk that is full or read-only: jobs wait or try again with a reason, and go on when it is mended."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.core.errors import StorageFull
from app.core.settings import Settings
from app.jobs import workers
from app.jobs.orm import Job
from app.jobs.states import JobState
from app.jobs.types import Resource
from app.jobs.waiting import queue_places
from app.storage import FilesystemStore
from tests.support.disks import MIB, mount, remount
from tests.support.services import Service, open_service
from tests.support.waiting import wait_for
from worker.supervision.free_space import StorageCheck


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of this test's own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("file systems can be mounted by root alone")
    mount("-o", "size=64m", "none", str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_site(
    worker_environment: None, disk: Path, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Service]]:
    """A site whose blobs and scratch files lie on the small disk, and whose database does not."""
    stack = ExitStack()

    def make(min_free_bytes: int) -> Service:
        given: dict[str, Any] = {
            "home": disk,
            "database_url": sqlite_url,
            "min_free_bytes": min_free_bytes,
            "max_attempts": 20,
        }
        for name, value in given.items():
            monkeypatch.setenv(f"GRAFT_{name.upper()}", str(value))
        quick = {
            "weights_download": False,
            "poll_seconds": 0.05,
            "heartbeat_seconds": 0.2,
            "lease_seconds": 3.0,
            "setback_seconds": 1.0,
        }
        settings = Settings(**given, **quick, _env_file=None)
        service = stack.enter_context(open_service(settings, "none"))
        service.dataset("pets")
        return service

    with stack:
        yield make


def problem(site: Service) -> str | None:
    """The reason that the worker gives in the registry."""
    with site.stage.database.reading() as session:
        found = workers.list_workers(session, site.workspace.id, limit=9, cursor=None).items
        return found[0].problem.reason if found and found[0].problem else None


def waiting_for(site: Service) -> set[str]:
    with site.stage.database.reading() as session:
        return {one.waiting_for for one in queue_places(session, Resource.gpu, 64).values()}


def test_below_the_floor_jobs_wait_and_then_run_by_themselves(small_site: Callable[..., Service], disk: Path) -> None:
    site = small_site(min_free_bytes=256 * MIB)
    job_id = site.train(epochs=1)
    site.start_worker()
    wait_for(lambda: problem(site) == "storage_full")
    assert waiting_for(site) == {"storage"}
    assert (site.job(job_id).state, site.job(job_id).attempt) == (JobState.queued, 0)
    remount(disk, "size=1g")
    assert site.until(job_id, JobState.succeeded).attempt == 1
    wait_for(lambda: problem(site) is None)


def test_a_disk_that_becomes_read_only_keeps_jobs_waiting(small_site: Callable[..., Service], disk: Path) -> None:
    site = small_site(min_free_bytes=0)
    job_id = site.train(epochs=1)
    remount(disk, "ro,size=1g")
    try:
        site.start_worker()
        wait_for(lambda: problem(site) == "storage_unavailable")
        assert site.job(job_id).attempt == 0
    finally:
        remount(disk, "rw")
    site.until(job_id, JobState.succeeded)


def test_a_job_that_fills_the_disk_is_set_back_and_goes_on_when_there_is_room(
    small_site: Callable[..., Service], disk: Path
) -> None:
    site = small_site(min_free_bytes=0)
    job_id = site.train(epochs=1, train="all", augmentation="none")
    remount(disk, "size=6m")  # the images fit, the checkpoints do not
    site.start_worker()

    def set_back() -> Job | None:
        job = site.job(job_id)
        assert job.state is not JobState.failed, job.failure
        return job if job.setback else None

    job: Job = wait_for(set_back)
    assert job.setback is not None
    assert (job.setback["reason"], job.state, job.failure) == ("storage_full", JobState.queued, None)
    assert "no room" in job.setback["detail"]
    remount(disk, "size=1g")
    job = site.until(job_id, JobState.succeeded)
    assert job.attempt >= 2
    staged = disk / "blobs" / "tmp"
    assert list(staged.glob("*")) == []


def test_the_floor_counts_free_bytes(disk: Path, tmp_path: Path) -> None:
    store = FilesystemStore(disk / "blobs")

    def room(floor: int) -> dict[str, Any] | None:
        settings = Settings(home=disk, min_free_bytes=floor, _env_file=None)  # type: ignore[call-arg]
        return StorageCheck(settings, store).look()

    assert room(16 * MIB) is None
    found = room(1024 * MIB)
    assert found is not None
    assert (found["reason"], "GRAFT_MIN_FREE_BYTES" in found["detail"]) == ("storage_full", True)
    (disk / "ballast").write_bytes(bytes(60 * MIB))
    with pytest.raises(StorageFull, match="no room"):
        store.put_bytes(os.urandom(16 * MIB))
    assert list((disk / "blobs" / "tmp").glob("*")) == []
