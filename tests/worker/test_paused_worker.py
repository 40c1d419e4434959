"""A worker that is paused for longer than its lease, and wakes up when somebody else has done its job."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.core.outbox import Event
from app.jobs.orm import Checkpoint, EpochMetrics, Job
from app.jobs.states import JobState
from app.registry.orm import Model
from tests.support.images import REPOSITORY
from tests.support.processes import children, group_is_gone
from tests.support.services import Service
from tests.support.waiting import wait_for

pytestmark = pytest.mark.usefixtures("short_lease")


@pytest.fixture
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_LEASE_SECONDS", "3")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "paused.log"


@pytest.fixture
def paused(site: Service, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker process of its own, so that it can be stopped and go on."""
    with log.open("wb") as output:
        worker = subprocess.Popen([sys.executable, "-m", "worker"], cwd=REPOSITORY, stderr=output)
    yield worker
    worker.send_signal(signal.SIGCONT)
    worker.terminate()
    assert worker.wait(120) == 0


def everything(site: Service) -> dict[str, list[dict[str, Any]]]:
    """All that is written about jobs and models."""
    tables = (Job, Event, EpochMetrics, Checkpoint, Model)
    with site.stage.database.reading() as session:
        return {
            table.__tablename__: [
                {column.key: getattr(row, column.key) for column in table.__mapper__.column_attrs}
                for row in session.query(table).all()
            ]
            for table in tables
        }


def test_it_writes_nothing(
    site: Service, paused: "subprocess.Popen[bytes]", log: Path, undisturbed: dict[str, Any]
) -> None:
    wait_for(lambda: children("train", paused.pid))
    job_id = site.train_long()
    job = site.until_training(job_id)
    assert job.worker is not None
    assert str(paused.pid) in job.worker
    (child,) = children("train", paused.pid)
    paused.send_signal(signal.SIGSTOP)

    site.start_worker()
    again = site.until(job_id, JobState.succeeded)
    assert again.worker is not None
    assert str(os.getpid()) in again.worker
    assert again.attempt == 2
    before = everything(site)

    # Its child has computed on, and what it said waits in the pipe.
    assert "claim_lost" not in log.read_text()
    paused.send_signal(signal.SIGCONT)
    wait_for(lambda: "claim_lost" in log.read_text())
    wait_for(lambda: group_is_gone(child))
    assert everything(site) == before
    assert len(before["models"]) == 1
    assert site.artefact(job_id) == undisturbed["artefact"]
