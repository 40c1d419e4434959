"""The machines of a job that several share: who may lead it, who takes its places, and when the job is given back."""

from uuid import UUID

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime
from app.core.database import Database
from app.jobs import claiming, queue, sharing, workers
from app.jobs import service as jobs
from app.jobs.orm import Job, JobMember
from app.jobs.queue import Claim
from app.jobs.sharing import Attendance
from app.jobs.states import FailureReason, JobState
from app.jobs.types import Resource
from app.jobs.waiting import PlannedJob, QueuePlace, queue_places
from tests.support.factories import EXPIRED, PROBLEM, queued_trainings, took, training, worker, workspace

LEADER, SECOND, THIRD = "worker-1", "worker-2", "worker-3"  # the first is whom `claimed` claims for
ADDRESS = "10.0.0.1:4000"
MISSING = {"reason": FailureReason.machines_missing, "detail": "Too few.", "hint": "Wait."}


@pytest.fixture
def database(postgresql_url: str) -> Database:
    """SQLite has no jobs of several machines."""
    return Database(postgresql_url)


@pytest.fixture
def session(database: Database) -> Session:
    """One transaction with three workers that live; it is rolled back."""
    session = Session(database.engine, expire_on_commit=False)
    for name in (LEADER, SECOND, THIRD):
        worker(session, name)
    yield session
    session.close()
    database.close()


def shared(session: Session, machines: int = 2, **asked: int) -> Job:
    return training(session, resources={"machines": machines}, **asked)


def claim(session: Session, by: str = LEADER) -> Job | None:
    return claiming.claim(session, ["train"], by, 60)


def gathering(session: Session, machines: int = 2, by: str = LEADER, **asked: int) -> Claim:
    """The claim on a new job whose places are free."""
    shared(session, machines, **asked)
    job = claim(session, by)
    assert job is not None
    held = Claim(job.id, job.epoch)
    sharing.gather(session, held, by, ADDRESS, machines)
    return held


def join(session: Session, name: str) -> JobMember:
    place = sharing.join(session, name, 60)
    assert place is not None
    return place


def test_it_is_claimed_where_as_many_workers_live_as_it_needs(session: Session) -> None:
    job = shared(session, machines=4)
    assert not claiming.waiting(session, ["train"])
    assert claim(session) is None
    assert queued_trainings(session) == {job.id: QueuePlace("machines")}
    planned = PlannedJob("train", job.workspace_id, job.dataset_id, {}, 0, due=True, machines=4)
    assert queue_places(session, Resource.gpu, 64, planned)[None] == QueuePlace("machines")
    fourth = worker(session, "worker-4")
    assert queued_trainings(session)[job.id].waiting_for == "slot"
    workers.beat(session, fourth, devices=[], problem=PROBLEM, lost_after=60)
    assert claim(session) is None
    workers.beat(session, fourth, devices=[], problem=None, lost_after=EXPIRED)
    assert claim(session) is None
    workers.beat(session, fourth, devices=[], problem=None, lost_after=60)
    assert claiming.waiting(session, ["train"])
    assert claim(session) is job


def test_each_place_goes_to_a_worker_of_its_own(session: Session) -> None:
    held = gathering(session, machines=3)
    assert not sharing.vacant(session, LEADER)
    assert sharing.join(session, LEADER, 60) is None
    assert sharing.lacking(session, [held.job_id]) == {held.job_id}
    first = join(session, SECOND)
    assert (first.job_id, first.epoch, first.number, first.address) == (held.job_id, held.epoch, 1, ADDRESS)
    assert sharing.join(session, SECOND, 60) is None
    assert join(session, THIRD).number == 2
    assert not sharing.vacant(session, "worker-4")
    assert sharing.lacking(session, [held.job_id]) == set()
    assert sharing.attendance(session, held) == Attendance(taken=2, present=2, lost=[])


def test_a_worker_that_a_place_waits_for_claims_no_job(session: Session) -> None:
    gathering(session)
    job = training(session)
    assert claiming.claim(session, ["train"], SECOND, 60, unless=sharing.vacancy(SECOND)) is None
    assert job.state is JobState.queued
    # Its own job waits for others: the leader has no place to take.
    assert claiming.claim(session, ["train"], LEADER, 60, unless=sharing.vacancy(LEADER)) is job
    another = training(session)
    join(session, SECOND)
    assert claiming.claim(session, ["train"], THIRD, 60, unless=sharing.vacancy(THIRD)) is another


def test_two_that_come_at_once_do_not_wait_for_each_other(database: Database, session: Session) -> None:
    gathering(session, machines=3)
    session.commit()
    with Session(database.engine) as one, Session(database.engine) as two:
        assert {join(one, SECOND).number, join(two, THIRD).number} == {1, 2}
        one.rollback()
        assert join(two, "worker-4").number == 1


def test_two_slots_of_a_worker_do_not_both_get_a_place(database: Database, session: Session) -> None:
    """The second one waits for the first one's commit, and finds that its worker has a place."""
    from threading import Thread

    held = gathering(session, machines=3)
    session.commit()
    found: list[JobMember | None] = []

    def second_slot() -> None:
        with database.writing() as other:
            found.append(sharing.join(other, SECOND, 60))

    with database.writing() as first:
        join(first, SECOND)
        thread = Thread(target=second_slot)
        thread.start()
    thread.join()
    assert found == [None]
    assert sharing.attendance(session, held).taken == 1


def test_a_place_is_kept_while_the_job_runs_under_its_claim(session: Session) -> None:
    held = gathering(session)
    place = join(session, SECOND)
    assert sharing.renew(session, place.id, 60)
    jobs.cancel(session, workspace(session).id, held.job_id)
    assert not sharing.renew(session, place.id, 60)
    queue.cancelled(session, held)
    assert not sharing.renew(session, place.id, 60)


def test_places_of_an_attempt_that_is_over_are_nobodys(session: Session) -> None:
    held = gathering(session, machines=3)
    old = join(session, SECOND)
    queue.release(session, held)
    assert not sharing.vacant(session, THIRD)
    assert not sharing.renew(session, old.id, 60)
    job = claim(session, THIRD)
    assert job is not None
    sharing.gather(session, Claim(job.id, job.epoch), THIRD, ADDRESS, 3)
    assert not sharing.renew(session, old.id, 60)
    sharing.leave(session, old.id, done=False)
    assert join(session, SECOND).id != old.id


def test_who_leaves_is_lost_unless_its_part_is_done(session: Session) -> None:
    held = gathering(session, machines=3)
    second, third = join(session, SECOND), join(session, THIRD)
    sharing.leave(session, second.id, done=True)
    assert sharing.attendance(session, held) == Attendance(taken=2, present=1, lost=[])
    sharing.leave(session, third.id, done=False)
    assert sharing.attendance(session, held) == Attendance(taken=2, present=0, lost=[THIRD])


def test_who_lets_the_lease_run_out_is_lost(session: Session) -> None:
    held = gathering(session)
    place = join(session, SECOND)
    assert sharing.renew(session, place.id, EXPIRED)
    assert sharing.attendance(session, held).lost == [SECOND]


def test_of_two_that_wait_for_each_other_the_one_that_comes_first_goes_first(session: Session) -> None:
    first = gathering(session, by=LEADER)
    second = gathering(session, by=SECOND)
    assert sharing.outranked(session, second, SECOND)
    assert not sharing.outranked(session, first, LEADER)
    join(session, THIRD)  # of the first job: it comes first in the queue
    assert sharing.attendance(session, first).taken == 1
    assert not sharing.outranked(session, second, SECOND)
    gathering(session, by="worker-4", priority=1)
    assert sharing.outranked(session, first, LEADER)


def test_waiting_for_the_others_is_no_running_time_and_no_attempt(session: Session) -> None:
    held = gathering(session, max_seconds=100)
    job = session.get_one(Job, held.job_id)
    assert (job.phase, job.claimed_at) == ("meeting", None)
    queue.release(session, held, MISSING, delay_seconds=60)
    session.refresh(job)
    assert (job.state, job.attempt, job.ran_seconds, job.setback) == ("queued", 0, 0.0, MISSING)
    assert queued_trainings(session) == {job.id: QueuePlace("machines")}
    assert claim(session) is None
    session.execute(update(Job).values(run_after=DatabaseTime(-1)))
    assert queued_trainings(session)[job.id].waiting_for == "slot"
    claimed = claim(session)
    assert claimed is not None
    held = Claim(claimed.id, claimed.epoch)
    sharing.gather(session, held, LEADER, ADDRESS, 2)
    sharing.begin(session, held)
    session.execute(update(Job).values(claimed_at=DatabaseTime(-30)))
    queue.release(session, held)
    session.refresh(job)
    assert 30 <= job.ran_seconds < 100


def test_its_turn_is_when_as_many_slots_are_free(session: Session) -> None:
    took(session, 100)
    running = [training(session) for _ in range(2)]
    for _ in running:
        assert claim(session) is not None
    running[0].eta_seconds, running[1].eta_seconds = 30.0, 50.0
    pair, single = shared(session).id, training(session).id
    found: dict[UUID, QueuePlace] = queued_trainings(session)
    assert (found[pair].seconds, found[single].seconds) == (30.0, 50.0)  # the third slot is free already
    session.execute(update(Job).where(Job.id == running[0].id).values(eta_seconds=80.0))
    assert queued_trainings(session)[pair].seconds == 50.0


def test_a_worker_lists_the_jobs_that_it_shares(session: Session) -> None:
    held = gathering(session)
    place = join(session, SECOND)
    mine = workspace(session).id

    def listed() -> dict[str, list[UUID]]:
        return {one.name: one.jobs for one in workers.list_workers(session, mine, limit=9, cursor=None).items}

    assert listed() == {LEADER: [held.job_id], SECOND: [held.job_id], THIRD: []}
    sharing.leave(session, place.id, done=True)
    assert listed() == {LEADER: [held.job_id], SECOND: [], THIRD: []}


def test_a_forgotten_job_takes_its_places_along(session: Session) -> None:
    held = gathering(session)
    queue.fail(session, held, MISSING)
    assert jobs.forget(session, ended_before=DatabaseTime(1)) == 1
    assert session.query(JobMember).count() == 0
