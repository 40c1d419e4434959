"""Housekeeping frees what nothing refers to, and nothing else."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.api.orm import KEPT_SECONDS, IdempotentAnswer
from app.core import outbox
from app.core.clock import DatabaseTime
from app.core.database import Database
from app.core.ids import new_id
from app.core.outbox import Event
from app.core.settings import Settings
from app.datasets import service as datasets
from app.jobs import queue
from app.jobs import service as jobs
from app.jobs.orm import EpochMetrics, Job
from app.jobs.states import JobState
from app.registry import service as registry
from app.registry.orm import Model
from app.storage import Blob, FilesystemStore
from tests.support.factories import (
    EXPIRED,
    TRAINED,
    claimed,
    ingested,
    ingestion,
    new_dataset,
    prediction,
    sha,
    training,
    workspace,
)
from worker.supervision import housekeeping

GRACE = 100.0  # seconds
OLD, YOUNG = 1000.0, 10.0  # seconds of age, beyond and within the grace


@pytest.fixture
def store(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "blobs")


def age(path: Path, seconds: float) -> None:
    then = datetime.now(UTC).timestamp() - seconds
    os.utime(path, (then, then))


def put(store: FilesystemStore, content: str, seconds: float = OLD) -> Blob:
    """A blob that was put so many seconds ago. Its hash is `sha(content)`."""
    blob = store.put_bytes(content.encode())
    age(store.fetch(blob.sha256, Path()), seconds)
    assert blob.sha256 == sha(content)
    return blob


def kept(store: FilesystemStore) -> set[str]:
    return {blob.sha256 for blob in store.list()}


def test_only_blobs_that_nothing_refers_to_are_freed(database: Database, store: FilesystemStore) -> None:
    needed = ["image", "manifest", "archive", "checkpoint", "artefact"]
    for content in (*needed, "orphan", "another orphan"):
        put(store, content)
    with database.writing() as session:
        waiting = datasets.create(
            session, workspace(session).id, "waiting", datasets.Upload(Blob(sha("archive"), 7), "zip", None)
        )
        dataset = new_dataset(session)
        datasets.fill(session, dataset.id, ingested("image", manifest="manifest"))
        job = training(session, dataset)
        queue.record_checkpoint(session, claimed(session), Blob(sha("checkpoint"), 1), 1, 1)
        ended = training(session, dataset)
        held = claimed(session)
        model = registry.record(session, queue.locked(session, held), Blob(sha("artefact"), 1), TRAINED)
        queue.succeed(session, ended, {})
        session.execute(update(Job).where(Job.started_at.is_not(None)).values(started_at=DatabaseTime(-2 * OLD)))
        assert job.state is JobState.running
    # The training that runs is older than every blob here, and needs none but those that rows name.
    assert housekeeping.free_blobs(database, store, GRACE) == 2
    assert kept(store) == {sha(content) for content in needed}

    with database.writing() as session:
        jobs.cancel(session, job.workspace_id, job.id)
        queue.cancelled(session, queue.Claim(job.id, 1))
        registry.delete(session, session.get_one(Model, model.id))
        for each in (waiting, dataset):
            datasets.delete(session, datasets.get(session, each.workspace_id, each.id))
    assert housekeeping.free_blobs(database, store, GRACE) == 4
    assert kept(store) == {sha("manifest")}


def test_predictions_are_kept_as_long_as_their_job(database: Database, store: FilesystemStore) -> None:
    for content in ("manifest of pets", "artefact", "images", "orphan"):
        put(store, content)
    with database.writing() as session:
        job = prediction(session, artefact_sha256=sha("artefact"), images_sha256=sha("images"))
    assert housekeeping.free_blobs(database, store, GRACE) == 1
    rows = put(store, "rows")
    with database.writing() as session:
        held = claimed(session, "predict")
        file = {"file": {"sha256": rows.sha256, "size": rows.size}}
        queue.succeed(session, queue.locked(session, held), file)
    assert housekeeping.free_blobs(database, store, GRACE) == 2
    assert kept(store) == {sha("manifest of pets"), rows.sha256}
    with database.writing() as session:
        assert jobs.forget(session, DatabaseTime(-OLD)) == 0
        assert jobs.forget(session, DatabaseTime(OLD)) == 1
    assert housekeeping.free_blobs(database, store, GRACE) == 1
    assert kept(store) == {sha("manifest of pets")}
    with database.reading() as session:
        assert session.get(Job, job.id) is None


def test_a_young_blob_is_let_be(database: Database, store: FilesystemStore) -> None:
    put(store, "old", OLD)
    put(store, "young", YOUNG)
    assert housekeeping.free_blobs(database, store, GRACE) == 1
    assert kept(store) == {sha("young")}
    assert housekeeping.free_blobs(database, store, YOUNG / 2) == 1
    assert kept(store) == set()


def test_a_blob_put_again_is_young_again(database: Database, store: FilesystemStore) -> None:
    put(store, "again", OLD)
    store.put_bytes(b"again")
    assert housekeeping.free_blobs(database, store, GRACE) == 0
    assert kept(store) == {sha("again")}


@pytest.mark.parametrize("state", ["queued again", "running", "cancelling"])
def test_what_was_put_since_an_unfinished_reading_began_is_let_be(
    database: Database, store: FilesystemStore, state: str
) -> None:
    with database.writing() as session:
        job = ingestion(session)
        held = claimed(session, "ingest")
        if state == "queued again":
            queue.release(session, held)
        if state == "cancelling":
            jobs.cancel(session, job.workspace_id, job.id)
        session.execute(update(Job).values(started_at=DatabaseTime(-5 * OLD)))
    put(store, "before the job", 6 * OLD)
    put(store, "made by the job", 4 * OLD)
    assert housekeeping.free_blobs(database, store, GRACE) == 1
    assert kept(store) == {sha("made by the job")}
    with database.writing() as session:
        if state == "cancelling":
            queue.cancelled(session, held)
        elif state == "running":
            queue.fail(session, held, {"reason": "internal", "detail": "", "hint": None})
        else:
            jobs.cancel(session, job.workspace_id, job.id)
    assert housekeeping.free_blobs(database, store, GRACE) == 1
    assert kept(store) == set()


def test_a_training_of_days_holds_up_what_was_put_minutes_ago_and_no_more(
    database: Database, store: FilesystemStore
) -> None:
    """Its checkpoints have rows at once, and its model is put when it is about to be written down."""
    put(store, "put an hour ago", 3_600)
    put(store, "put a minute ago", 60)
    with database.writing() as session:
        training(session)
        claimed(session)
        session.execute(update(Job).values(started_at=DatabaseTime(-5 * 86_400)))
    assert housekeeping.free_blobs(database, store, YOUNG) == 1
    assert kept(store) == {sha("put a minute ago")}


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_blobs_age_is_told_by_the_stores_clock(database: Database, tmp_path: Path, hours: int) -> None:
    """This machine's clock is hours away from the one that dates blobs."""

    class Elsewhere(FilesystemStore):
        def now(self) -> datetime:
            return datetime.now(UTC) + timedelta(hours=hours)

    store = Elsewhere(tmp_path / "blobs")
    for name, seconds in (("old", OLD), ("young", YOUNG)):
        put(store, name, seconds - hours * 3_600)
    assert housekeeping.free_blobs(database, store, GRACE) == 1
    assert kept(store) == {sha("young")}


def test_what_a_dead_writer_left_is_discarded_after_the_grace(database: Database, store: FilesystemStore) -> None:
    put(store, "x")
    folder = store.root / "tmp"
    folder.mkdir(exist_ok=True)
    for name, seconds in (("old", OLD), ("young", YOUNG)):
        (folder / name).write_bytes(b"half")
        age(folder / name, seconds)
    housekeeping.free_blobs(database, store, GRACE)
    assert [path.name for path in folder.iterdir()] == ["young"]


def test_jobs_that_ended_long_ago_are_forgotten_and_what_they_made_stays(
    database: Database, store: FilesystemStore
) -> None:
    day = 86_400.0
    put(store, "artefact")
    with database.writing() as session:
        ended, fresh, waiting = (training(session) for _ in range(3))
        for job, age in ((ended, -91 * day), (fresh, -89 * day)):
            held = claimed(session)
            queue.record_epoch(session, held, {"epoch": 1})
            queue.record_checkpoint(session, held, Blob(sha("checkpoint"), 1), 1, 1)
            if job is ended:
                made = registry.record(session, job, Blob(sha("artefact"), 1), TRAINED).id
            queue.succeed(session, job, {})
            session.execute(update(Job).where(Job.id == job.id).values(finished_at=DatabaseTime(age)))
        session.execute(update(Job).where(Job.id == waiting.id).values(created_at=DatabaseTime(-200 * day)))
    assert housekeeping.forget_jobs(database, 0) == 0
    assert housekeeping.forget_jobs(database, 90) == 1
    assert housekeeping.forget_jobs(database, 90) == 0
    with database.reading() as session:
        assert set(session.scalars(select(Job.id))) == {fresh.id, waiting.id}
        assert set(session.scalars(select(EpochMetrics.job_id))) <= {fresh.id, waiting.id}
        told = set(session.scalars(select(Event.subject_id).where(Event.topic.like("job.%"))))
        assert told == {fresh.id, waiting.id}
        assert registry.get(session, ended.workspace_id, made).job_id == ended.id
    housekeeping.free_blobs(database, store, GRACE)
    assert kept(store) == {sha("artefact")}


def test_events_are_forgotten_in_time_and_those_of_jobs_with_their_job(database: Database) -> None:
    here, subject = new_id(), new_id()
    for topic, number, days in (("model.created", None, 31), ("job.state", 1, 31), ("model.deleted", None, 29)):
        with database.writing() as session:
            outbox.tell(session, here, topic, subject, {}, number)
        with database.writing() as session:
            at_that_time = update(Event).where(Event.topic == topic)
            session.execute(at_that_time.values(created_at=DatabaseTime(-days * 86_400)))
    assert housekeeping.forget_events(database, 0) == 0
    assert housekeeping.forget_events(database, 30) == 1
    with database.reading() as session:
        assert [one.topic for one in outbox.after(session, here, 0)] == ["job.state", "model.deleted"]


# Scratch


@pytest.mark.parametrize("place", ["", ".1"])  # the leader's, another machine's
def test_a_jobs_folder_goes_when_its_claim_has_ended(database: Database, settings: Settings, place: str) -> None:
    with database.writing() as session:
        training(session)
        training(session)
        lost, held = claimed(session), claimed(session)
        queue.release(session, lost)
        again = claimed(session)
    folders = {}
    for claim in (lost, held, again):
        folders[claim] = settings.scratch / f"job-{claim.job_id}-{claim.epoch}{place}"
        (folders[claim] / "images").mkdir(parents=True)
        (folders[claim] / "images" / "one").write_bytes(b"x")
        age(folders[claim], OLD * 100)
    assert housekeeping.free_scratch(database, settings) == 1
    assert {claim for claim, folder in folders.items() if folder.exists()} == {held, again}


def test_other_files_go_by_their_age(database: Database, settings: Settings) -> None:
    settings.scratch.mkdir()
    (settings.scratch / "model-x").mkdir()
    (settings.scratch / "upload-old").write_bytes(b"half")
    (settings.scratch / "upload-young").write_bytes(b"half")
    (settings.scratch / "job-of-nobody").write_bytes(b"?")
    (settings.scratch / "job-00000000-0000-7000-8000-000000000000-x").write_bytes(b"?")
    for path in settings.scratch.iterdir():
        age(path, settings.blob_grace_seconds + (YOUNG if path.name != "upload-young" else -YOUNG))
    assert housekeeping.free_scratch(database, settings) == 4
    assert [path.name for path in settings.scratch.iterdir()] == ["upload-young"]


def test_a_file_whose_user_removes_it_meanwhile_is_no_fault(database: Database, settings: Settings) -> None:
    """A link to nothing is as absent to whoever looks at its age."""
    settings.scratch.mkdir()
    (settings.scratch / "upload-gone").symlink_to(settings.scratch / "nowhere")
    (settings.scratch / "upload-old").write_bytes(b"half")
    age(settings.scratch / "upload-old", settings.blob_grace_seconds + YOUNG)
    assert housekeeping.free_scratch(database, settings) == 1


def test_without_a_scratch_folder_there_is_nothing_to_do(database: Database, settings: Settings) -> None:
    assert not settings.scratch.exists()
    assert housekeeping.free_scratch(database, settings) == 0


# Rows


def test_answers_are_forgotten_after_their_time(database: Database) -> None:
    with database.writing() as session:
        mine = workspace(session).id
        for key, seconds in (("old", -KEPT_SECONDS - 60), ("young", -KEPT_SECONDS + 60), ("new", 0)):
            row = IdempotentAnswer(workspace_id=mine, key=key, request_sha256=sha(key), status=201, body={})
            row.created_at = DatabaseTime(seconds)
            session.add(row)
    housekeeping.forget_answers(database)
    with database.reading() as session:
        assert set(session.scalars(select(IdempotentAnswer.key))) == {"young", "new"}


def test_expired_jobs_are_taken_back(database: Database) -> None:
    with database.writing() as session:
        lost, held = training(session).id, training(session).id
        claimed(session, lease_seconds=EXPIRED)
        claimed(session)
    assert housekeeping.take_back_expired(database) == [lost]
    assert housekeeping.take_back_expired(database) == []
    with database.reading() as session:
        assert (session.get_one(Job, lost).state, session.get_one(Job, held).state) == ("queued", "running")


def test_all_garbage_in_one_go(database: Database, store: FilesystemStore, settings: Settings) -> None:
    long_ago = settings.blob_grace_seconds + timedelta(minutes=1).total_seconds()
    put(store, "orphan", long_ago)
    settings.scratch.mkdir()
    (settings.scratch / "upload-old").write_bytes(b"half")
    age(settings.scratch / "upload-old", long_ago)
    housekeeping.collect_garbage(database, store, settings)
    assert kept(store) == set()
    assert list(settings.scratch.iterdir()) == []


def test_replaced_checkpoints_are_freed_while_their_job_runs(database: Database, store: FilesystemStore) -> None:
    for content in ("replaced", "kept by another job", "young"):
        put(store, content, YOUNG if content == "young" else OLD)
    with database.writing() as session:
        training(session)
        queue.record_checkpoint(session, claimed(session), Blob(sha("kept by another job"), 1), 1, 1)
    replaced = {sha(content) for content in ("replaced", "kept by another job", "young")}
    settled = housekeeping.free_checkpoints(database, store, replaced, GRACE)
    assert settled == {sha("replaced"), sha("kept by another job")}
    assert kept(store) == {sha("kept by another job"), sha("young")}
    assert housekeeping.free_checkpoints(database, store, replaced - settled, YOUNG / 2) == {sha("young")}
