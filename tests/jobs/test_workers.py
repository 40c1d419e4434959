"""The registry of workers, on both databases."""

from sqlalchemy import update

from app.core.clock import DatabaseTime
from app.core.database import Database
from app.jobs import claiming, workers
from app.jobs.orm import RegisteredWorker
from tests.support.factories import PROBLEM, ready_dataset, training, worker, workspace

DEVICE = {"name": "A GPU", "memory_total": 80 * 2**30, "memory_free": 79 * 2**30}


def test_a_worker_is_alive_until_its_time_is_over(database: Database) -> None:
    with database.writing() as session:
        mine = workspace(session).id
        registered = worker(session, lost_after=60)
        (seen,) = workers.list_workers(session, mine, limit=9, cursor=None).items
        assert (seen.id, seen.state, seen.running, seen.jobs, seen.problem) == (registered, "alive", 0, [], None)
        session.execute(update(RegisteredWorker).values(expires_at=DatabaseTime(-1)))
        (seen,) = workers.list_workers(session, mine, limit=9, cursor=None).items
        assert seen.state == "lost"
        assert workers.beat(session, registered, devices=[DEVICE], problem=PROBLEM, lost_after=60)
        (seen,) = workers.list_workers(session, mine, limit=9, cursor=None).items
        assert seen.state == "alive"
        assert [device.model_dump() for device in seen.devices] == [DEVICE]
        assert seen.problem is not None
        assert seen.problem.model_dump() == PROBLEM


def test_of_its_jobs_only_the_callers_are_named(database: Database) -> None:
    with database.writing() as session:
        mine, other = workspace(session), workspace(session, "other")
        worker(session, "host:1")
        own, foreign = training(session), training(session, ready_dataset(session, "pets", other.id))
        for _ in (own, foreign):
            assert claiming.claim(session, ["train"], "host:1", 60) is not None
        (seen,) = workers.list_workers(session, mine.id, limit=9, cursor=None).items
        assert (seen.running, seen.jobs) == (2, [own.id])
        (seen,) = workers.list_workers(session, other.id, limit=9, cursor=None).items
        assert (seen.running, seen.jobs) == (2, [foreign.id])


def test_a_new_life_takes_the_place_of_the_old_one(database: Database) -> None:
    with database.writing() as session:
        old, new = worker(session, "host:1"), worker(session, "host:1")
        assert not workers.beat(session, old, devices=[], problem=None, lost_after=60)
        assert [one.id for one in workers.list_workers(session, workspace(session).id, limit=9, cursor=None).items] == [
            new
        ]
        workers.leave(session, new)
        assert workers.list_workers(session, workspace(session).id, limit=9, cursor=None).items == []


def test_the_lost_are_listed_for_a_day(database: Database) -> None:
    with database.writing() as session:
        worker(session, "lost", lost_after=-86_000)
        worker(session, "long lost", lost_after=-87_000)
        workers.forget_lost(session)
        found = workers.list_workers(session, workspace(session).id, limit=9, cursor=None).items
        assert [(one.name, one.state) for one in found] == [("lost", "lost")]
