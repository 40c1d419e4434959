"""Real children that predict: whatever happens to them half-way, every image has one row, and the rows are the same."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch

from app.jobs import service as jobs
from app.jobs.orm import Checkpoint, Job
from app.jobs.states import JobState
from app.predictions.batch.type import PREDICT
from app.vision.training.result import FitResult
from tests.support.child_work import doing, kinds_with, predict_and_wait
from tests.support.processes import children, group_is_gone
from tests.support.services import Service
from tests.support.stages import train_tiny
from tests.support.waiting import wait_for
from worker.supervision.worker import Worker

CLASSES = ("ants", "bees")
BATCHES, HALF_WAY = 6, 3  # of four images each; before the third one a child waits, in `predict_and_wait`


class Predicting:
    """A site with a model, whose children that predict wait half-way until the gate is opened."""

    def __init__(self, site: Service, home: Path, trained: FitResult) -> None:
        self.site = site
        self.gate, self.log = home / "gate", home / "log"
        site.train()
        job = site.stage.claim("train")
        assert job is not None
        self.model = site.stage.finish(job, trained, CLASSES)

    def start(self) -> Worker:
        """A worker that is there for uploads and predictions alone."""
        return self.site.start_worker(kinds=kinds_with(doing(PREDICT, predict_and_wait)), train_slots=0)

    def job(self, **fields: Any) -> UUID:
        asked = {"model": str(self.model), "dataset": "pets", "probabilities": "all"}
        return self.site.stage.predictions(self.site.workspace, **asked | fields)

    def batches(self) -> int:
        """How many batches were begun, in all attempts."""
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0

    def until_half_way(self) -> int:
        """The child that waits."""
        wait_for(lambda: self.batches() == HALF_WAY)
        (child,) = children("predict", os.getpid())
        return child

    def kept(self, job_id: UUID) -> list[int]:
        """How many rows each place holds from where the job could go on."""
        return sorted(row.step for row in self.site.rows(Checkpoint, job_id))

    def rows(self, job: Job) -> list[dict[str, Any]]:
        """The result's rows, one for each image."""
        assert job.result is not None
        lines = self.site.stage.store.read(job.result["file"]["sha256"]).splitlines()
        rows = [json.loads(line) for line in lines]
        assert len(rows) == len({row["image"] for row in rows}) == job.result["images"] == job.spec["images"] == 24
        return rows

    def end(self, job_id: UUID) -> Job:
        """Let the job end; its rows have to be those of another one that nothing gets in the way of."""
        self.gate.touch()
        job = self.site.until(job_id, JobState.succeeded)
        begun = self.batches()
        undisturbed = self.site.until(self.job(), JobState.succeeded)
        assert self.batches() == begun + BATCHES
        assert self.rows(job) == self.rows(undisturbed)
        assert self.kept(job_id) == []
        wait_for(lambda: self.site.scratch() == [])
        return job


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return train_tiny(tmp_path_factory.mktemp("trained"), CLASSES)


@pytest.fixture
def predicting(
    site: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: FitResult
) -> Callable[..., Predicting]:
    """Makes the site; `keep_every` is in seconds."""

    def make(keep_every: float = 1e9) -> Predicting:
        made = Predicting(site, tmp_path, trained)
        monkeypatch.setenv("GRAFT_TEST_MARKS", str(tmp_path))
        monkeypatch.setenv("GRAFT_TEST_KEEP_EVERY", str(keep_every))
        return made

    return make


def test_a_job_runs_to_its_rows_and_its_child_goes(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    worker = found.start()
    assert children("predict", os.getpid()) == []  # none waits for a job
    job = found.end(found.job())
    assert (job.attempt, job.progress, job.failure, job.setback) == (1, 1.0, None, None)
    assert job.result is not None
    assert set(job.result) == {"model_id", "engine", "file", "images", "errors", "predicted"}
    wait_for(lambda: children("predict", os.getpid()) == [])
    found.site.stop_worker(worker)


def test_a_killed_child_is_replaced_and_no_image_has_two_rows(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    found.start()
    job_id = found.job()
    child = found.until_half_way()
    os.killpg(child, signal.SIGKILL)
    job = found.end(job_id)
    assert (job.attempt, found.batches()) == (2, HALF_WAY + 2 * BATCHES)  # from the beginning, and the one beside it
    assert job.setback is not None
    assert group_is_gone(child)


def test_a_killed_child_is_replaced_by_one_that_goes_on(predicting: Callable[..., Predicting]) -> None:
    found = predicting(keep_every=0.0)
    found.start()
    job_id = found.job()
    child = found.until_half_way()
    wait_for(lambda: found.kept(job_id) == [4, 8])
    os.killpg(child, signal.SIGKILL)
    job = found.end(job_id)
    # The two batches that were kept were not computed again; the third one was.
    assert (job.attempt, found.batches()) == (2, 1 + 2 * BATCHES)


def test_a_stopped_worker_gives_its_job_back_and_the_next_goes_on(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    first = found.start()
    job_id = found.job()
    child = found.until_half_way()
    found.site.stop_worker(first)
    job = found.site.job(job_id)
    assert (job.state, job.attempt) == (JobState.queued, 0)
    assert found.kept(job_id) == [4 * HALF_WAY]
    assert group_is_gone(child)
    found.start()
    assert (found.end(job_id).attempt, found.batches()) == (1, 2 * BATCHES)


def test_rows_that_were_kept_and_are_damaged_are_computed_again(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    first = found.start()
    job_id = found.job()
    found.until_half_way()
    found.site.stop_worker(first)
    (kept,) = found.site.rows(Checkpoint, job_id)
    path = found.site.stage.store.fetch(kept.sha256, found.site.stage.settings.scratch)
    path.write_bytes(path.read_bytes().replace(b"ants", b"bees"))
    found.start()
    assert (found.end(job_id).attempt, found.batches()) == (1, HALF_WAY + 2 * BATCHES)


def test_a_running_job_that_is_cancelled_ends_with_its_processes(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    found.start()
    job_id = found.job()
    child = found.until_half_way()
    with found.site.stage.database.writing() as session:
        assert jobs.cancel(session, found.site.workspace.id, job_id).state is JobState.cancelling
    job = found.site.until(job_id, JobState.cancelled)
    assert (job.failure, job.result, found.kept(job_id)) == (None, None, [])
    assert group_is_gone(child)
    wait_for(lambda: found.site.scratch() == [])


def test_a_training_holds_no_predictions_up(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    found.gate.touch()
    found.site.start_worker()
    training = found.site.train_for_ever()
    found.site.until_training(training)
    found.rows(found.site.until(found.job(), JobState.succeeded))
    assert found.site.job(training).state is JobState.running


def test_the_engine_that_is_asked_for_computes(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    found.gate.touch()
    found.start()
    job = found.site.until(found.job(engine="torch-bf16"), JobState.succeeded)
    assert job.result is not None
    assert job.result["engine"] == "torch-bf16"
    reference = found.site.until(found.job(), JobState.succeeded)
    for row, other in zip(found.rows(job), found.rows(reference), strict=True):
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=0.05)
    assert found.rows(job) != found.rows(reference)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and so the engine")
def test_an_engine_that_the_worker_has_not_fails_the_job_with_a_remedy(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    found.start()
    job = found.site.until(found.job(engine="cuda-fp16"), JobState.failed)
    assert job.failure is not None
    assert (job.failure["reason"], job.attempt) == ("invalid_config", 1)
    assert "GPU" in job.failure["detail"]
    assert job.failure["hint"]


def test_a_model_whose_file_is_gone_fails_the_job(predicting: Callable[..., Predicting]) -> None:
    found = predicting()
    job_id = found.job()
    found.site.stage.store.delete(found.site.job(job_id).spec["artefact_sha256"])
    found.start()
    job = found.site.until(job_id, JobState.failed)
    assert job.failure is not None
    assert job.failure["reason"] == "weights_unavailable"
    assert (job.result, found.batches()) == (None, 0)
