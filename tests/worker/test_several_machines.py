"""One job of two workers that share database and blob store alone: run, robbed of one, cancelled, stopped."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from app.api.views import job_view
from app.core.settings import Settings
from app.jobs import service as jobs
from app.jobs.orm import Checkpoint, EpochMetrics, JobMember
from app.jobs.states import JobState
from tests.support.images import REPOSITORY
from tests.support.processes import children, group_is_gone
from tests.support.services import Service, open_service
from tests.support.waiting import wait_for

TWO = {"machines": 2}
EPOCHS = 8


class Machines:
    """Worker processes, each with a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        home = self._folder / f"machine-{len(self._running)}"
        home.mkdir()
        environment = os.environ | self._environment | {"GRAFT_HOME": str(home)}
        with (home / "log").open("wb") as log:
            worker = subprocess.Popen([sys.executable, "-m", "worker"], cwd=REPOSITORY, env=environment, stderr=log)
        self._running.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self._running:
            worker.terminate()
        for worker in self._running:
            assert worker.wait(120) in (0, -signal.SIGKILL)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("machine-*/log")))


@pytest.fixture
def team(worker_environment: None, postgresql_url: str, tmp_path: Path) -> Iterator[Service]:
    settings = Settings(
        home=tmp_path, database_url=postgresql_url, weights_download=False, max_attempts=2, _env_file=None
    )  # type: ignore[call-arg]
    with open_service(settings, "none") as service:
        service.dataset("pets")
        yield service


@pytest.fixture
def machines(team: Service, tmp_path: Path) -> Iterator[Machines]:
    settings = team.stage.settings
    assert settings.database_url is not None
    quick = {"GRAFT_POLL_SECONDS": "0.05", "GRAFT_HEARTBEAT_SECONDS": "0.2", "GRAFT_MEETING_SECONDS": "600"}
    made = Machines(
        tmp_path, {"GRAFT_DATABASE_URL": settings.database_url, "GRAFT_STORAGE_URL": settings.blobs_url, **quick}
    )
    try:
        yield made
    finally:
        made.stop()
        print(made.logs()[-6000:])  # pytest shows it where the test has failed


@pytest.fixture(scope="module")
def by_two_processes(migrated_sqlite: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The SHA-256 of what the same training comes to with two processes of one machine."""
    home = tmp_path_factory.mktemp("alone")
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("GRAFT_HOME", str(home)), ("GRAFT_WEIGHTS_DOWNLOAD", "false"), ("OMP_NUM_THREADS", "1")):
            patch.setenv(name, value)
        settings = Settings(home=home, weights_download=False, poll_seconds=0.05, _env_file=None)  # type: ignore[call-arg]
        with open_service(settings, "none") as service:
            service.dataset("pets")
            service.start_worker()
            job_id = service.train_long(resources={"processes": 2}, epochs=EPOCHS)
            service.until(job_id, JobState.succeeded)
            return service.artefact(job_id)


def name(worker: "subprocess.Popen[bytes]") -> str:
    return f"{socket.gethostname()}:{worker.pid}"


def places(site: Service, job_id: UUID) -> list[tuple[int, str | None, bool]]:
    with site.stage.database.reading() as session:
        rows = session.query(JobMember).filter_by(job_id=job_id).order_by(JobMember.number).all()
        return [(row.number, row.worker, row.done) for row in rows]


def waits_for(site: Service, job_id: UUID) -> str | None:
    with site.stage.database.reading() as session:
        return job_view(session, jobs.get(session, site.workspace.id, job_id), site.stage.settings).waiting_for


def cancel(site: Service, job_id: UUID) -> None:
    with site.stage.database.writing() as session:
        jobs.cancel(session, site.workspace.id, job_id)
    site.until(job_id, JobState.cancelled)


def test_two_workers_train_what_two_processes_of_one_train(
    team: Service, machines: Machines, by_two_processes: str
) -> None:
    workers = {name(worker): worker for worker in (machines.start(), machines.start())}
    job_id = team.train_long(resources=TWO, epochs=EPOCHS)
    job = team.until(job_id, JobState.succeeded)
    assert (job.attempt, job.setback) == (1, None)
    assert team.artefact(job_id) == by_two_processes
    (leader, second) = places(team, job_id)
    assert leader == (0, job.worker, False)
    assert (second[0], second[2]) == (1, True)
    assert {leader[1], second[1]} == set(workers)
    assert len(team.rows(EpochMetrics, job_id)) == EPOCHS


@pytest.mark.long
def test_where_one_of_two_workers_is_lost_a_third_makes_the_same_model(
    team: Service, machines: Machines, by_two_processes: str
) -> None:
    workers = {name(worker): worker for worker in (machines.start(), machines.start())}
    job_id = team.train_long(resources=TWO, epochs=EPOCHS)
    job = team.until_training(job_id)
    (first,) = [known for known in workers if known == job.worker]
    (lost,) = [worker for known, worker in workers.items() if known != first]
    (child,) = children("train", lost.pid)
    lost.kill()
    wait_for(lambda: waits_for(team, job_id) == "machines")
    wait_for(lambda: group_is_gone(child))
    job = team.job(job_id)
    assert job.setback is not None
    assert job.setback["reason"] == "worker_lost"
    third = machines.start()
    job = team.until(job_id, JobState.succeeded)
    assert job.attempt == 2
    assert team.artefact(job_id) == by_two_processes
    assert {worker for _, worker, _ in places(team, job_id)} == {first, name(third)}


def test_a_cancelled_job_leaves_no_process(team: Service, machines: Machines) -> None:
    workers = {name(worker): worker for worker in (machines.start(), machines.start())}
    job_id = team.train_for_ever(resources=TWO)
    team.until_training(job_id)
    groups = [group for worker in workers.values() for group in children("train", worker.pid)]
    assert len(groups) == 2
    cancel(team, job_id)
    assert all(group_is_gone(group) for group in groups)


@pytest.mark.long
def test_a_stopped_machine_costs_no_attempt(team: Service, machines: Machines) -> None:
    workers = {name(worker): worker for worker in (machines.start(), machines.start())}
    job_id = team.train_for_ever(resources=TWO)
    leader = team.until_training(job_id).worker
    (stopped,) = [worker for known, worker in workers.items() if known != leader]
    stopped.terminate()
    wait_for(lambda: waits_for(team, job_id) == "machines")
    assert stopped.wait(120) == 0
    job = team.job(job_id)
    assert job.attempt <= 1
    assert job.setback is None
    assert team.rows(Checkpoint, job_id)
    cancel(team, job_id)
