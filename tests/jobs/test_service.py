"""Jobs as callers see them: submitted, looked up, cancelled."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.errors import Conflict, GraftError, Invalid, NotFound
from app.core.ids import new_id
from app.datasets import service as datasets
from app.datasets.orm import Dataset
from app.datasets.schemas import SplitOptions
from app.datasets.states import DatasetState
from app.ingestions import service as ingestions
from app.jobs import claiming, queue
from app.jobs import service as jobs
from app.jobs.orm import Job
from app.jobs.queue import ClaimLost
from app.jobs.schemas import JobOut
from app.jobs.states import JobState
from app.trainings import service as trainings
from app.trainings.schemas import TrainRequest
from app.vision.backbones.weights import WeightStore
from app.vision.settings.config import TrainConfig
from tests.support.factories import (
    FAILURE,
    SilentDoorbell,
    claimed,
    ingested,
    ingestion,
    new_dataset,
    ready_dataset,
    sha,
    training,
    workspace,
)


@pytest.fixture
def weights(tmp_path: Path) -> WeightStore:
    """A server with no backbone but the bundled one, and no way to get another."""
    return WeightStore(None, tmp_path / "weights", None, False)


def submit(session: Session, dataset: str, **fields: object) -> Job:
    request = TrainRequest.model_validate({"dataset": dataset, **fields})
    config = request.config("resnet18-tiny64").resolve()
    return trainings.submit(session, SilentDoorbell(), workspace(session).id, request, config, 3)


def test_a_training_waits_with_everything_filled_in(database: Database) -> None:
    with database.writing() as session:
        dataset = ready_dataset(session)
        job = submit(session, "pets", epochs=3, model_name="m")
    view = JobOut.model_validate(job)
    assert (view.kind, view.state, view.attempt, view.max_attempts, view.progress) == ("train", "queued", 0, 3, 0.0)
    assert (view.started_at, view.finished_at, view.worker, view.result, view.failure) == (None,) * 5
    assert view.dataset_id == dataset.id
    spec = dict(view.spec)
    assert spec.pop("model_name") == "m"
    assert spec.pop("resources") == {"processes": 1, "machines": 1}
    assert TrainConfig.from_dict(spec) == TrainConfig("resnet18-tiny64", epochs=3).resolve()
    with database.reading() as session:
        assert view.dataset_version_id == datasets.latest_versions(session, [dataset.id])[dataset.id].id


def test_a_model_is_called_like_its_dataset_unless_it_is_named(database: Database) -> None:
    with database.writing() as session:
        ready_dataset(session)
        assert submit(session, "pets").spec["model_name"] == "pets"


def test_an_ingestion_knows_its_archive_and_its_split(database: Database) -> None:
    with database.writing() as session:
        dataset = new_dataset(session)
        options = SplitOptions(val_fraction=0.3, test_fraction=0.1, seed=5)
        job = ingestions.submit(session, SilentDoorbell(), dataset, options, 2)
        other = ingestion(session, new_dataset(session, "other"))
        assert ingestions.newest_of(session, [dataset.id, other.dataset_id]) == {
            dataset.id: job,
            other.dataset_id: other,
        }
    assert (job.kind, job.max_attempts, job.dataset_version_id) == ("ingest", 2, None)
    assert job.spec == {
        "archive_sha256": sha("archive of pets"),
        "val_fraction": 0.3,
        "test_fraction": 0.1,
        "seed": 5,
    }


@pytest.mark.parametrize("state", ["processing", "failed"])
def test_a_dataset_that_is_not_ready_cannot_be_trained_on(database: Database, state: str) -> None:
    with database.writing() as session:
        dataset = new_dataset(session)
        if state == "failed":
            datasets.fail(session, dataset.id, FAILURE)
        with pytest.raises(Conflict, match="It broke" if state == "failed" else "still being read") as caught:
            submit(session, "pets")
    assert caught.value.code == "dataset_not_ready"


@pytest.mark.parametrize("whose", ["nobody's", "deleted", "theirs"])
def test_a_dataset_that_is_not_there_is_a_bad_field(database: Database, whose: str) -> None:
    with database.writing() as session:
        if whose == "deleted":
            datasets.delete(session, ready_dataset(session))
        if whose == "theirs":
            ready_dataset(session, workspace_id=workspace(session, "theirs").id)
        with pytest.raises(Invalid) as caught:
            submit(session, "pets")
    assert (caught.value.code, caught.value.errors[0].field) == ("unknown_dataset", "dataset")


def test_a_plan_is_complete(weights: WeightStore) -> None:
    config = trainings.resolve(TrainRequest(dataset="pets"), weights)
    assert config == TrainConfig("resnet18-tiny64").resolve()


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"backbone": "resnet19"}, "backbone", "unknown_backbone"),
        ({"backbone": "resnet50"}, "backbone", "weights_unavailable"),
        ({"train": {"last_stages": 99}}, "last_stages", "invalid"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_names_its_field(
    weights: WeightStore, fields: dict[str, object], field: str, code: str
) -> None:
    with pytest.raises(GraftError) as caught:
        trainings.resolve(TrainRequest.model_validate({"dataset": "pets", **fields}), weights)
    assert isinstance(caught.value, Invalid)
    assert (caught.value.errors[0].field, caught.value.code) == (field, code)


def test_another_workspaces_job_is_not_there(database: Database) -> None:
    with database.writing() as session:
        job = training(session)
        theirs = workspace(session, "theirs").id
        for workspace_id, job_id in ((theirs, job.id), (job.workspace_id, new_id())):
            with pytest.raises(NotFound, match=str(job_id)):
                jobs.get(session, workspace_id, job_id)
            with pytest.raises(NotFound):
                jobs.cancel(session, workspace_id, job_id)
        assert _listed(session, job, workspace_id=theirs) == []
    assert job.state is JobState.queued


def _listed(session: Session, like: Job, **narrowed: object) -> list[Job]:
    given: dict[str, object] = {"kind": None, "state": None, "dataset_id": None, "workspace_id": like.workspace_id}
    return list(jobs.list_jobs(session, **{**given, **narrowed}, limit=50, cursor=None).items)  # type: ignore[arg-type]


def test_lists_are_newest_first_and_can_be_narrowed(database: Database) -> None:
    with database.writing() as session:
        first = training(session)
        reading = ingestion(session, new_dataset(session, "other"))
        second = training(session)
        queue.fail(session, claimed(session), FAILURE)
        assert _listed(session, first) == [second, reading, first]
        assert _listed(session, first, kind="train") == [second, first]
        assert _listed(session, first, state=JobState.failed) == [first]
        assert _listed(session, first, dataset_id=reading.dataset_id) == [reading]


# Cancelling


def test_a_waiting_job_is_cancelled_at_once(database: Database) -> None:
    with database.writing() as session:
        job = training(session)
    with database.writing() as session:
        jobs.cancel(session, job.workspace_id, job.id)
    with database.writing() as session:
        found = jobs.get(session, job.workspace_id, job.id)
        assert (found.state, found.finished_at is None) == (JobState.cancelled, False)
        assert claiming.claim(session, ["train"], "w", 60) is None


def test_a_running_job_is_asked_to_stop(database: Database) -> None:
    with database.writing() as session:
        job = training(session)
        held = claimed(session)
    with database.writing() as session:
        assert jobs.cancel(session, job.workspace_id, job.id).state is JobState.cancelling
    with database.writing() as session:
        found = jobs.get(session, job.workspace_id, job.id)
        assert (found.state, found.finished_at) == (JobState.cancelling, None)
        assert queue.renew(session, held, 60) is JobState.cancelling


def test_cancelling_twice_changes_nothing(database: Database) -> None:
    with database.writing() as session:
        job = training(session)
        held = claimed(session)
        for _ in range(2):
            assert jobs.cancel(session, job.workspace_id, job.id).state is JobState.cancelling
        queue.cancelled(session, held)
        told = job.event_seq
        assert jobs.cancel(session, job.workspace_id, job.id).state is JobState.cancelled
        assert job.event_seq == told == 4


@pytest.mark.parametrize("end", ["succeeded", "failed"])
def test_a_job_that_has_ended_cannot_be_cancelled(database: Database, end: str) -> None:
    with database.writing() as session:
        job = training(session)
        held = claimed(session)
        if end == "failed":
            queue.fail(session, held, FAILURE)
        else:
            queue.succeed(session, queue.locked(session, held), {})
        with pytest.raises(Conflict, match=f"has {end} already") as caught:
            jobs.cancel(session, job.workspace_id, job.id)
    assert (caught.value.code, job.state) == ("job_ended", end)


def test_a_waiting_ingestion_that_is_cancelled_gives_its_name_back(database: Database) -> None:
    with database.writing() as session:
        job = ingestion(session)
        jobs.cancel(session, job.workspace_id, job.id)
    with database.writing() as session:
        dataset = session.get_one(Dataset, job.dataset_id)
        assert dataset.state is DatasetState.failed
        assert dataset.failure is not None
        assert dataset.failure["reason"] == "cancelled"
        new_dataset(session)


def test_a_job_claimed_since_it_was_looked_at_is_asked_to_stop(postgresql_url: str) -> None:
    """Cancelling it as a waiting one would leave its worker computing, and number two events alike."""
    database = Database(postgresql_url)
    with database.writing() as session:
        job = training(session)
    with database.writing() as session:
        seen = session.scalars(select(Job)).one()
        with database.writing() as other:
            held = claimed(other)
        assert seen.state is JobState.queued
        assert jobs.cancel(session, job.workspace_id, job.id).state is JobState.cancelling
    with database.writing() as session:
        assert queue.renew(session, held, 60) is JobState.cancelling
    database.close()


# Deleting a dataset


@pytest.mark.parametrize("state", ["queued", "running", "cancelling"])
def test_a_dataset_that_a_training_needs_is_not_released(database: Database, state: str) -> None:
    with database.writing() as session:
        job = training(session)
        if state != "queued":
            claimed(session)
        if state == "cancelling":
            jobs.cancel(session, job.workspace_id, job.id)
        with pytest.raises(Conflict, match=str(job.id)) as caught:
            jobs.release_dataset(session, session.get_one(Dataset, job.dataset_id))
    assert (caught.value.code, job.state) == ("dataset_in_use", state)


def test_a_dataset_whose_trainings_have_ended_is_released(database: Database) -> None:
    with database.writing() as session:
        job = training(session)
        queue.fail(session, claimed(session), FAILURE)
        jobs.release_dataset(session, session.get_one(Dataset, job.dataset_id))


@pytest.mark.parametrize(("state", "after"), [("queued", "cancelled"), ("running", "cancelling")])
def test_releasing_a_dataset_cancels_its_ingestion(database: Database, state: str, after: str) -> None:
    with database.writing() as session:
        job = ingestion(session)
        held = claimed(session, "ingest") if state == "running" else None
        dataset = session.get_one(Dataset, job.dataset_id)
        jobs.release_dataset(session, dataset)
        assert job.state == after
        datasets.delete(session, dataset)
        if held is not None:
            queue.cancelled(session, held)
            with pytest.raises(ClaimLost):
                queue.renew(session, held, 60)
        assert list(datasets.referenced_blobs(session)) == []


def test_a_dataset_deleted_meanwhile_is_not_there_to_be_released(database: Database) -> None:
    with database.writing() as session:
        dataset = ready_dataset(session)
    with database.writing() as session:
        datasets.delete(session, session.get_one(Dataset, dataset.id))
    with database.writing() as session, pytest.raises(NotFound):
        jobs.release_dataset(session, session.get_one(Dataset, dataset.id))


def test_a_dataset_of_another_name_does_not_matter(database: Database) -> None:
    with database.writing() as session:
        other = new_dataset(session, "other")
        datasets.fill(session, other.id, ingested("x.jpg"))
        job = training(session)
        jobs.release_dataset(session, other)
        assert job.state is JobState.queued
