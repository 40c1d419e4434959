"""A job that is interrupted where nothing is trained yet, or nothing any more: while images are decoded, while the
trunk's features are computed, and between the model's bytes and its row."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.datasets import service as datasets
from app.jobs import service as jobs
from app.jobs.orm import Checkpoint
from app.jobs.states import JobState
from app.registry import service as registry
from app.registry.orm import Model
from app.trainings.type import TRAIN
from tests.support.child_work import Run, doing, kinds_with, train_with_slow_decoding, train_with_slow_features
from tests.support.images import REPOSITORY
from tests.support.services import Service
from tests.support.waiting import wait_for
from worker.supervision.housekeeping import free_blobs


@pytest.mark.parametrize(
    ("phase", "slowly"), [("decoding", train_with_slow_decoding), ("features", train_with_slow_features)]
)
def test_a_deploy_before_the_first_step_costs_no_attempt(
    site: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, slowly: Run
) -> None:
    monkeypatch.setenv("GRAFT_TEST_MARKS", str(tmp_path))
    slow = tmp_path / "slow"
    slow.touch()
    kinds = kinds_with(doing(TRAIN, slowly))
    spec = {"train": "head", "augmentation": "none", "epochs": 3, "seed": 5}
    worker = site.start_worker(kinds)
    job_id = site.train(**spec)
    wait_for(lambda: site.job(job_id).phase == phase)
    site.stop_worker(worker)
    job = site.job(job_id)
    assert (job.state, job.attempt, job.failure) == (JobState.queued, 0, None)
    assert site.rows(Checkpoint, job_id) == []
    assert site.scratch() == []

    slow.unlink()
    site.start_worker()
    assert site.until(job_id, JobState.succeeded).attempt == 1
    undisturbed = site.train(**spec)
    site.until(undisturbed, JobState.succeeded)
    assert site.artefact(job_id) == site.artefact(undisturbed)


def test_a_worker_that_dies_between_the_artefact_and_its_row_leaves_no_second_model(
    site: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    monkeypatch.setenv("GRAFT_LEASE_SECONDS", "3")
    monkeypatch.setenv("GRAFT_TEST_MARKS", str(tmp_path))
    monkeypatch.setenv("GRAFT_JOB_TYPES", "tests.support.dying_worker:DIES")
    dying = subprocess.Popen([sys.executable, "-m", "worker"], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    job_id = site.train_long()
    assert dying.wait(600) == -signal.SIGKILL
    assert (tmp_path / "died").exists()
    monkeypatch.delenv("GRAFT_JOB_TYPES")
    assert site.job(job_id).state is JobState.running
    with site.stage.database.reading() as session:
        assert session.query(Model).count() == 0

    site.start_worker()
    job = site.until(job_id, JobState.succeeded)
    assert job.attempt == 2
    assert site.artefact(job_id) == undisturbed["artefact"]
    wait_for(lambda: site.scratch() == [])
    free_blobs(site.stage.database, site.stage.store, 0.0)
    with site.stage.database.reading() as session:
        assert session.query(Model).count() == 1
        named = {
            sha256
            for referenced in (datasets.referenced_blobs, jobs.referenced_blobs, registry.referenced_blobs)
            for sha256 in referenced(session)
        }
    assert {blob.sha256 for blob in site.stage.store.list()} == named
