"""Workers with real children: a job ends well whatever happens to child, worker, claim and database."""

import os
import re
import signal
import sqlite3
import threading
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from app.jobs import events, workers
from app.jobs import service as jobs
from app.jobs.orm import Checkpoint, EpochMetrics, Job
from app.jobs.schemas import WorkerOut
from app.jobs.states import JobState
from app.registry import service as registry
from app.registry.orm import Model
from app.trainings.type import TRAIN
from tests.support.child_work import doing, kinds_with, train_with_a_checkpoint_an_epoch
from tests.support.processes import children, group_is_gone
from tests.support.services import LONG, Service
from tests.support.waiting import wait_for
from worker.supervision.housekeeping import free_blobs


def only_child() -> int:
    """The child that runs the one training; none is kept warm beside it."""
    (pid,) = wait_for(lambda: children("train", os.getpid()))
    return pid


def states(site: Service, job_id: UUID) -> list[tuple[str, int]]:
    with site.stage.database.reading() as session:
        told = events.after(session, job_id, 0)
        return [(one.data["state"], one.data["attempt"]) for one in told if one.type == "state"]


def models(site: Service) -> int:
    with site.stage.database.reading() as session:
        return session.query(Model).count()


def test_a_job_runs_to_its_model(undisturbed: dict[str, Any]) -> None:
    job: Job = undisturbed["job"]
    assert (job.state, job.attempt, job.progress, job.failure) == (JobState.succeeded, 1, 1.0, None)
    assert job.result is not None
    assert set(job.result) == {"model_id", "best_epoch", "accuracy"}
    assert job.finished_at > job.started_at > job.created_at


def test_a_killed_child_is_replaced_and_the_job_succeeds(site: Service, undisturbed: dict[str, Any]) -> None:
    site.start_worker()
    job_id = site.train_long()
    site.until_training(job_id)
    child = only_child()
    os.killpg(child, signal.SIGKILL)
    job = site.until(job_id, JobState.succeeded)
    assert job.attempt == 2
    assert states(site, job_id) == [("queued", 0), ("running", 1), ("queued", 1), ("running", 2), ("succeeded", 2)]
    assert site.artefact(job_id) == undisturbed["artefact"]
    assert len(site.rows(EpochMetrics, job_id)) == LONG
    assert group_is_gone(child)
    wait_for(lambda: site.scratch() == [])


def test_a_job_that_is_killed_each_time_fails_and_the_next_one_runs(site: Service) -> None:
    site.start_worker()
    job_id = site.train_long()
    following = site.train(epochs=1)
    killed: list[int] = []

    def kill_each() -> bool:
        if site.job(job_id).state is JobState.running:
            for child in set(children("train", os.getpid())) - set(killed):
                if site.job(job_id).attempt == len(killed) + 1:
                    os.killpg(child, signal.SIGKILL)
                    killed.append(child)
        return len(killed) == 2

    wait_for(kill_each)
    job = site.until(job_id, JobState.failed)
    assert job.attempt == job.max_attempts == 2
    assert job.failure is not None
    assert job.failure["reason"] == "killed"  # by the test, and not by the kernel
    assert "SIGKILL" in job.failure["detail"]
    assert job.failure["hint"]
    assert job.result is None
    site.until(following, JobState.succeeded)
    assert models(site) == 1
    assert site.rows(Checkpoint, job_id) == []
    wait_for(lambda: site.scratch() == [])


def test_a_running_job_that_is_cancelled_ends_with_its_processes(site: Service) -> None:
    site.start_worker()
    job_id = site.train_for_ever()
    site.until_training(job_id)
    child = only_child()
    with site.stage.database.writing() as session:
        assert jobs.cancel(session, site.workspace.id, job_id).state is JobState.cancelling
    job = site.until(job_id, JobState.cancelled)
    assert (job.failure, job.result) == (None, None)
    assert group_is_gone(child)
    assert [state for state, _ in states(site, job_id)] == ["queued", "running", "cancelling", "cancelled"]
    assert models(site) == 0
    wait_for(lambda: site.scratch() == [])


def test_a_stopped_worker_gives_its_job_back_and_the_next_goes_on(site: Service, undisturbed: dict[str, Any]) -> None:
    first = site.start_worker()
    job_id = site.train_long()
    site.until_training(job_id)
    child = only_child()
    site.stop_worker(first)

    job = site.job(job_id)
    assert (job.state, job.attempt) == (JobState.queued, 0)
    (checkpoint,) = site.rows(Checkpoint, job_id)
    assert site.stage.store.exists(checkpoint.sha256)
    assert group_is_gone(child)
    assert site.scratch() == []
    before = {row.epoch: row.metrics for row in site.rows(EpochMetrics, job_id)}
    assert checkpoint.epoch in (max(before), max(before) + 1)

    site.start_worker()
    job = site.until(job_id, JobState.succeeded)
    assert job.attempt == 1
    assert site.artefact(job_id) == undisturbed["artefact"]
    after = {row.epoch: row.metrics for row in site.rows(EpochMetrics, job_id)}
    assert sorted(after) == list(range(1, LONG + 1))
    # What was done before the stop was not done again: the wall clock's figures are still those of then.
    done = [epoch for epoch in before if epoch < checkpoint.epoch]
    assert done
    assert {epoch: after[epoch] for epoch in done} == {epoch: before[epoch] for epoch in done}
    assert site.rows(Checkpoint, job_id) == []
    wait_for(lambda: site.scratch() == [])


def test_a_worker_is_registered_while_it_lives(site: Service) -> None:
    def listed() -> list[WorkerOut]:
        with site.stage.database.reading() as session:
            return list(workers.list_workers(session, site.workspace.id, limit=9, cursor=None).items)

    worker = site.start_worker()
    (seen,) = wait_for(listed)
    assert (seen.state, seen.train_slots, seen.name) == ("alive", 1, f"{seen.host}:{os.getpid()}")
    assert seen.devices[0].memory_total
    job_id = site.train_for_ever()
    site.until_training(job_id)
    assert [one.jobs for one in listed()] == [[job_id]]
    assert site.job(job_id).worker == seen.name
    site.stop_worker(worker)
    assert listed() == []


def test_a_stopped_worker_leaves_no_process(site: Service) -> None:
    worker = site.start_worker(warm_children=True)
    warm = [*wait_for(lambda: children("train", os.getpid())), *wait_for(lambda: children("ingest", os.getpid()))]
    site.stop_worker(worker)
    assert all(group_is_gone(child) for child in warm)
    assert children("train", os.getpid()) == []
    assert children("ingest", os.getpid()) == []


def test_a_worker_that_is_being_stopped_still_takes_lost_jobs_back(
    site: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own job may need its time, and there may be no other worker."""
    worker = site.start_worker(train_slots=0, sweep_seconds=0.05)
    slot, come = worker._slots[0], threading.Event()
    stop = slot.stop
    monkeypatch.setattr(slot, "stop", lambda: (come.wait(), stop()))
    stopping = threading.Thread(target=site.stop_worker, args=(worker,))
    stopping.start()
    wait_for(worker._stopping.is_set)
    job_id = site.train()
    assert site.stage.claim("train", lease_seconds=-1) is not None
    site.until(job_id, JobState.queued)
    come.set()
    stopping.join()


def test_a_worker_that_lost_its_claim_writes_nothing_more(site: Service) -> None:
    site.start_worker()
    job_id = site.train_for_ever()
    site.until_training(job_id)
    child = only_child()
    with site.stage.database.writing() as session:
        session.execute(
            update(Job).where(Job.id == job_id).values(epoch=Job.epoch + 1, worker="another", phase="elsewhere")
        )
    taken = site.job(job_id)
    epochs = len(site.rows(EpochMetrics, job_id))
    wait_for(lambda: group_is_gone(child))
    wait_for(lambda: site.scratch() == [])
    job = site.job(job_id)
    unchanged = ("state", "worker", "phase", "progress", "attempt", "epoch", "event_seq", "lease_expires_at", "failure")
    assert {name: getattr(job, name) for name in unchanged} == {name: getattr(taken, name) for name in unchanged}
    assert job.state is JobState.running
    assert len(site.rows(EpochMetrics, job_id)) == epochs


def test_a_job_outlives_a_database_that_is_away_for_a_moment(site: Service, undisturbed: dict[str, Any]) -> None:
    site.start_worker()
    job_id = site.train_long()
    site.until_training(job_id)
    lock = sqlite3.connect(site.stage.settings.home / "graftwork.db", isolation_level=None, timeout=10)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        # Longer than a few heartbeats, shorter than the lease: what comes meanwhile waits.
        threading.Event().wait(2.0)
        lock.execute("COMMIT")
    finally:
        lock.close()
    job = site.until(job_id, JobState.succeeded)
    assert job.attempt == 1
    assert site.artefact(job_id) == undisturbed["artefact"]
    assert len(site.rows(EpochMetrics, job_id)) == LONG


@pytest.mark.parametrize("content", [b"PK\x05\x06" + b"\0" * 18, b"no archive"])
def test_an_upload_that_cannot_be_read_fails_for_its_data_and_not_for_us(site: Service, content: bytes) -> None:
    site.start_worker()
    dataset_id = site.stage.upload(site.workspace, "bad", content)
    with site.stage.database.reading() as session:
        job_id = session.query(Job.id).filter_by(dataset_id=dataset_id).scalar()
    job = site.until(job_id, JobState.failed)
    assert job.failure is not None
    assert job.failure["reason"] == "invalid_data"
    assert job.attempt == 1
    wait_for(lambda: site.scratch() == [])


def test_a_job_is_ended_at_its_deadline_with_its_processes(site: Service) -> None:
    site.start_worker()
    job_id = site.train_for_ever(max_seconds=3600)
    site.until_training(job_id)
    child = only_child()
    site.stop_worker(site.workers[0])
    with site.stage.database.writing() as session:
        job = session.get_one(Job, job_id)
        assert 0 < job.ran_seconds < 3600
        job.ran_seconds = 3599.0  # as if it had run for that long
    assert group_is_gone(child)
    site.start_worker()
    job = site.until(job_id, JobState.failed)
    assert job.failure is not None
    assert (job.failure["reason"], job.attempt) == ("deadline", 1)
    assert job.ran_seconds >= 3600
    assert children("train", os.getpid()) != [child]
    wait_for(lambda: site.scratch() == [])


def test_a_long_job_keeps_no_more_checkpoints_than_it_may_go_on_from(
    site: Service,
) -> None:
    site.start_worker(kinds_with(doing(TRAIN, train_with_a_checkpoint_an_epoch)), lease_seconds=2.0)
    before = len(list(site.stage.store.list()))
    job_id = site.train_for_ever(train="head", augmentation="none")

    def freed() -> bool:
        epochs = len(site.rows(EpochMetrics, job_id))
        assert epochs < 5000
        return epochs >= 40 and len(list(site.stage.store.list())) - before < epochs / 2

    wait_for(freed)
    assert site.job(job_id).attempt == 1
    for checkpoint in site.rows(Checkpoint, job_id):
        assert site.stage.store.exists(checkpoint.sha256)


def test_a_training_that_diverges_says_so(site: Service) -> None:
    site.start_worker()
    job_id = site.train(train="all", optimizer="sgd", learning_rate=10, epochs=30, schedule="constant")
    job = site.until(job_id, JobState.failed)
    assert job.failure is not None
    assert job.failure["reason"] == "diverged"
    assert "learning_rate" in job.failure["hint"]
    assert re.search(r"in epoch \d+, step \d+: lower", job.failure["detail"])
    assert job.attempt == 1
    assert models(site) == 0


def test_a_child_that_is_stopped_before_it_can_listen_costs_no_attempt(
    site: Service,
) -> None:
    """A deploy that comes while the child still imports: SIGTERM's handler is there, and what looks at it is not."""
    worker = site.start_worker(kinds_with(doing(TRAIN, "tests.support.slow_import:run")))
    job_id = site.train()
    site.until(job_id, JobState.running)
    site.stop_worker(worker)
    job = site.job(job_id)
    assert (job.state, job.attempt) == (JobState.queued, 0)


def test_the_working_folder_of_a_lost_worker_goes_soon(site: Service) -> None:
    """Not only when a worker starts: the lease of the lost one may end after that."""
    site.start_worker(warm_children=True)
    wait_for(lambda: children("ingest", os.getpid()))
    folder = site.stage.settings.scratch / f"job-{site.train(epochs=1)}-0"
    (folder / "images").mkdir(parents=True)
    wait_for(lambda: not folder.exists())


def test_a_model_is_fine_tuned_again_though_its_row_is_deleted_meanwhile(site: Service) -> None:
    worker = site.start_worker()
    first = site.until(site.train(), JobState.succeeded)
    site.stop_worker(worker)
    assert first.result is not None
    job_id = site.train(base_model=first.result["model_id"], epochs=1)
    with site.stage.database.writing() as session:
        registry.delete(session, registry.get(session, site.workspace.id, UUID(first.result["model_id"])))
    free_blobs(site.stage.database, site.stage.store, 0.0)
    site.start_worker()
    job = site.until(job_id, JobState.succeeded)
    assert job.result is not None
    assert job.spec["lineage"][0]["model_id"] == first.result["model_id"]
    (metrics,) = site.rows(EpochMetrics, job_id)
    begun = min(site.rows(EpochMetrics, first.id), key=lambda row: row.epoch)
    assert metrics.metrics["val_loss"] < begun.metrics["val_loss"]
