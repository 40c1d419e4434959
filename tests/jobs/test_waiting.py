"""What a queued job is told: what it waits for, its place, and for how long."""

from datetime import timedelta

from sqlalchemy import update

from app.core.clock import DatabaseTime, utc_now
from app.core.database import Database
from app.jobs import workers
from app.jobs.orm import Job
from app.jobs.types import Resource
from app.jobs.waiting import QueuePlace, queue_places
from tests.support.factories import (
    PROBLEM,
    claimed,
    ingestion,
    new_dataset,
    queued_trainings,
    ready_dataset,
    took,
    training,
    worker,
    workspace,
)


def test_without_a_living_worker_it_says_so(database: Database) -> None:
    with database.writing() as session:
        first, second = training(session).id, training(session).id
        assert queued_trainings(session) == {first: QueuePlace("worker", 1), second: QueuePlace("worker", 2)}
        worker(session, lost_after=-1)
        assert queued_trainings(session)[first].waiting_for == "worker"


def test_workers_without_room_are_another_reason_than_none(database: Database) -> None:
    with database.writing() as session:
        job = training(session).id
        registered = worker(session)
        workers.beat(session, registered, devices=[], problem=PROBLEM, lost_after=60)
        assert queued_trainings(session) == {job: QueuePlace("storage", 1)}
        workers.beat(session, registered, devices=[], problem=None, lost_after=60)
        assert queued_trainings(session) == {job: QueuePlace("slot", 1, 0.0)}


def test_a_worker_without_slots_for_trainings_is_none_for_them(database: Database) -> None:
    with database.writing() as session:
        job, upload = training(session).id, ingestion(session, new_dataset(session, "new")).id
        worker(session, train_slots=0)
        assert queued_trainings(session) == {job: QueuePlace("worker", 1)}
        assert queue_places(session, Resource.io, 64) == {upload: QueuePlace("slot", 1, 0.0)}


def test_the_estimate_comes_from_what_runs_what_is_ahead_and_what_like_jobs_took(database: Database) -> None:
    with database.writing() as session:
        worker(session, train_slots=2)
        for seconds in (90, 100, 500):
            took(session, seconds)
        running = [training(session) for _ in range(2)]
        for _ in running:
            claimed(session)
        line = [training(session).id for _ in range(3)]
        running[0].eta_seconds, running[1].eta_seconds = 30.0, 50.0
        session.flush()
        found = queued_trainings(session)
        assert [(found[one].place, found[one].seconds) for one in line] == [(1, 30.0), (2, 50.0), (3, 130.0)]
        urgent = training(session, priority=1).id
        found = queued_trainings(session)
        assert [found[one].seconds for one in (urgent, *line)] == [30.0, 50.0, 130.0, 150.0]


def test_what_nobody_can_know_is_null(database: Database) -> None:
    with database.writing() as session:
        worker(session)
        training(session)
        claimed(session)  # it has told no ETA yet
        first = training(session).id
        assert queued_trainings(session)[first] == QueuePlace("slot", 1, None)
        session.execute(update(Job).where(Job.state == "running").values(eta_seconds=10.0))
        second = training(session).id
        found = queued_trainings(session)
        assert (found[first].seconds, found[second].seconds) == (10.0, None)  # none like the first has ended yet
        took_elsewhere = training(session, ready_dataset(session, "other")).id
        assert queued_trainings(session)[took_elsewhere].seconds is None


def test_one_that_may_not_run_yet_has_no_place_and_takes_none(database: Database) -> None:
    with database.writing() as session:
        worker(session, train_slots=9)
        training(session)
        claimed(session)
        later = training(session, run_after=utc_now() + timedelta(hours=1)).id
        fits, over = training(session).id, training(session).id
        other = training(session, ready_dataset(session, "pets", workspace(session, "other").id)).id
        found = queued_trainings(session, max_running=2)
        assert found[later] == QueuePlace("run_after")
        assert found[over] == QueuePlace("workspace_limit")
        assert (found[fits].place, found[other].place) == (1, 2)
        session.execute(update(Job).where(Job.id == later).values(run_after=DatabaseTime(-1)))
        assert queued_trainings(session, max_running=64)[later].place == 1


def test_uploads_have_a_queue_of_their_own(database: Database) -> None:
    with database.writing() as session:
        worker(session, train_slots=4)
        job, upload = training(session).id, ingestion(session, new_dataset(session, "new")).id
        assert queued_trainings(session).keys() == {job}
        assert queue_places(session, Resource.io, 64) == {upload: QueuePlace("slot", 1, 0.0)}
