"""The queue of job rows, on both databases: claims, leases, the fence, and how a job ends."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime, utc_now
from app.core.database import Database, Pool
from app.core.errors import Conflict, Unavailable
from app.datasets.orm import Dataset
from app.datasets.states import DatasetState
from app.jobs import checkpoints, claiming, events, queue
from app.jobs import service as jobs
from app.jobs.orm import Checkpoint, Job
from app.jobs.queue import Claim, ClaimLost
from app.jobs.states import TERMINAL, JobState
from app.storage import Blob
from tests.support.factories import (
    EXPIRED,
    FAILURE,
    claimed,
    ingested,
    ingestion,
    new_dataset,
    ready_dataset,
    sha,
    training,
    workspace,
)

BOTH = ["train", "ingest"]
Write = Callable[[Session, Claim], object]


def succeed(session: Session, held: Claim) -> None:
    queue.succeed(session, queue.locked(session, held), {"model_id": "m"})


def fail(session: Session, held: Claim) -> None:
    queue.fail(session, held, FAILURE)


def retry(session: Session, held: Claim) -> None:
    queue.retry(session, held, FAILURE)


def checkpoint(session: Session, held: Claim, name: str = "checkpoint", epoch: int = 1) -> None:
    queue.record_checkpoint(session, held, Blob(sha(name), 10), epoch, epoch * 100)


WRITES: dict[str, Write] = {
    "renew": lambda session, held: queue.renew(session, held, 60),
    "progress": lambda session, held: queue.report_progress(session, held, "training", 0.9, 1.0),
    "epoch": lambda session, held: queue.record_epoch(session, held, {"epoch": 1, "val_loss": 0.1}),
    "checkpoint": checkpoint,
    "succeed": succeed,
    "result": lambda session, held: queue.finish(session, held, {}),
    "fail": fail,
    "retry": retry,
    "cancelled": queue.cancelled,
    "release": queue.release,
}

# Ways for a claim to lose its job.
LOSSES: dict[str, Write] = {
    "given back": queue.release,
    "tried again": retry,
    "succeeded": succeed,
    "failed": fail,
}


def look(database: Database, job_id: UUID) -> Job:
    with database.reading() as session:
        return session.get_one(Job, job_id)


def facts(database: Database, job_id: UUID) -> dict[str, object]:
    """Everything that is written of a job."""
    with database.reading() as session:
        job = session.get_one(Job, job_id)
        row = {column.name: getattr(job, column.key) for column in Job.__table__.columns}
        row["events"] = [(one.seq, one.type, one.data) for one in events.after(session, job_id, 0)]
        row["metrics"] = [one.metrics for one in jobs.metrics(session, job_id)]
        row["checkpoints"] = [one.sha256 for one in checkpoints.newest_first(session, job_id)]
        return row


def told(database: Database, job_id: UUID) -> list[str]:
    """The states that listeners were told, in order."""
    with database.reading() as session:
        found = events.after(session, job_id, 0)
        assert [one.seq for one in found] == list(range(1, len(found) + 1))
        assert session.get_one(Job, job_id).event_seq == len(found)
        return [one.data["state"] for one in found if one.type == "state"]


def running(database: Database, max_attempts: int = 3, lease_seconds: float = 60.0) -> Claim:
    with database.writing() as session:
        training(session, max_attempts=max_attempts)
        return claimed(session, lease_seconds=lease_seconds)


def reading(database: Database, max_attempts: int = 3, lease_seconds: float = 60.0) -> tuple[Claim, UUID]:
    """A claim on an ingestion, and the id of the dataset it reads."""
    with database.writing() as session:
        job = ingestion(session, max_attempts=max_attempts)
        return claimed(session, "ingest", lease_seconds), job.dataset_id


# Claims


def test_a_claim_takes_the_job_for_a_while(database: Database) -> None:
    with database.writing() as session:
        made = training(session).id
    with database.writing() as session:
        job = claiming.claim(session, BOTH, "host:1", 600)
    assert job is not None
    assert job.id == made
    found = look(database, made)
    assert (found.state, found.worker, found.attempt, found.epoch, found.phase) == (
        "running",
        "host:1",
        1,
        1,
        "starting",
    )
    assert found.started_at is not None
    assert timedelta(seconds=590) < found.lease_expires_at - utc_now() < timedelta(seconds=610)
    assert told(database, made) == ["queued", "running"]


def test_jobs_are_claimed_in_the_order_they_came(database: Database) -> None:
    with database.writing() as session:
        made = [training(session).id for _ in range(5)]
    taken = []
    for _ in made:
        with database.writing() as session:
            taken.append(claimed(session).job_id)
    assert taken == made
    with database.writing() as session:
        assert claiming.claim(session, BOTH, "w", 60) is None


def test_a_job_given_back_comes_before_the_younger_ones(database: Database) -> None:
    with database.writing() as session:
        first, second = training(session).id, training(session).id
        held = claimed(session)
        queue.release(session, held)
        assert [claimed(session).job_id, claimed(session).job_id] == [first, second]


def test_a_worker_gets_jobs_of_its_kinds_alone(database: Database) -> None:
    with database.writing() as session:
        older, younger = ingestion(session, new_dataset(session, "x")).id, training(session).id
        assert claiming.waiting(session, ["train"])
        assert claimed(session, "train").job_id == younger
        assert not claiming.waiting(session, ["train"])
        assert claiming.claim(session, ["train"], "w", 60) is None
        assert claiming.waiting(session, BOTH)
        assert claimed(session, "ingest").job_id == older


def test_threads_never_get_the_same_job(database: Database) -> None:
    with database.writing() as session:
        made = [training(session).id for _ in range(24)]
    together = threading.Barrier(4)

    def work() -> list[UUID]:
        together.wait()
        taken: list[UUID] = []
        while True:
            with database.writing() as session:
                job = claiming.claim(session, BOTH, "w", 60)
            if job is None:
                return taken
            taken.append(job.id)

    with ThreadPoolExecutor(4) as pool:
        taken = [one for future in [pool.submit(work) for _ in range(4)] for one in future.result()]
    assert sorted(taken) == made
    assert {look(database, one).epoch for one in made} == {1}


def test_on_postgresql_a_claim_does_not_wait_for_another(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    with database.writing() as session:
        first, second = training(session).id, training(session).id
    with database.writing() as one, database.writing() as other:
        assert claimed(one).job_id == first
        assert claimed(other).job_id == second
    database.close()


def test_on_postgresql_a_worker_paused_in_a_transaction_keeps_nobody_from_its_job(
    postgresql_url: str,
) -> None:
    database = Database(postgresql_url, Pool(idle_seconds=0.5))
    held = running(database, lease_seconds=EXPIRED)

    def paused() -> None:
        with database.writing() as session:
            queue.locked(session, held)
            while True:  # it is passed over while its row is locked
                with database.writing() as other:
                    if queue.expire(other):
                        break
            queue.report_progress(session, held, "training", 0.5, 1.0)

    with pytest.raises(Unavailable):
        paused()
    assert told(database, held.job_id) == ["queued", "running", "queued"]
    assert look(database, held.job_id).progress == 0.0
    database.close()


def test_a_claim_that_is_rolled_back_never_was(database: Database) -> None:
    with database.writing() as session:
        made = training(session).id

    def breaks() -> None:
        with database.writing() as session:
            claimed(session)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        breaks()
    assert (look(database, made).state, told(database, made)) == ("queued", ["queued"])


# Whose turn it is


def test_the_higher_priority_goes_first_and_then_the_older(database: Database) -> None:
    with database.writing() as session:
        made = {name: training(session, priority=priority).id for name, priority in (("a", 0), ("b", 5), ("c", -5))}
        made["d"] = training(session, priority=5).id
        assert [claimed(session).job_id for _ in made] == [made[name] for name in "bdac"]


def test_a_job_is_not_claimed_before_its_time_by_the_databases_clock(database: Database) -> None:
    with database.writing() as session:
        late = training(session, priority=9, run_after=utc_now() + timedelta(hours=1)).id
        early = training(session, run_after=utc_now() - timedelta(hours=1)).id
        assert claimed(session).job_id == early
        assert not claiming.waiting(session, BOTH)
        assert claiming.claim(session, BOTH, "w", 60) is None
        session.execute(update(Job).where(Job.id == late).values(run_after=DatabaseTime(-1)))
        assert claiming.waiting(session, BOTH)
        assert claimed(session).job_id == late


def test_a_workspace_at_its_limit_waits_and_does_not_hold_up_another(database: Database) -> None:
    with database.writing() as session:
        crowd = [training(session, priority=9).id for _ in range(3)]
        quiet = training(session, ready_dataset(session, "pets", workspace(session, "quiet").id)).id
        reading = ingestion(session, new_dataset(session, "x")).id  # another kind has a limit of its own

        def claim() -> UUID | None:
            job = claiming.claim(session, BOTH, "w", 60, max_running=2)
            return job.id if job else None

        first = claiming.claim(session, BOTH, "w", 60, max_running=2)
        assert first is not None
        assert [first.id, claim(), claim(), claim(), claim()] == [crowd[0], crowd[1], quiet, reading, None]
        assert not claiming.waiting(session, BOTH, max_running=2)
        assert claiming.waiting(session, BOTH)
        succeed(session, Claim(first.id, first.epoch))
        assert claiming.waiting(session, BOTH, max_running=2)
        assert claim() == crowd[2]


def test_a_job_has_as_many_attempts_as_it_asks_for(database: Database) -> None:
    with database.writing() as session:
        made = training(session, max_attempts=1).id
        assert session.get_one(Job, made).max_attempts == 1
        retry(session, claimed(session))
    assert look(database, made).state == "failed"


# How long it may run


def ran(session: Session, held: Claim, seconds: float) -> None:
    """Put the claim so many seconds into the past."""
    session.execute(update(Job).where(Job.id == held.job_id).values(claimed_at=DatabaseTime(-seconds)))


def test_the_time_of_all_attempts_counts_and_waiting_does_not(database: Database) -> None:
    with database.writing() as session:
        made = training(session, max_seconds=100).id
    for again in (queue.release, retry):
        with database.writing() as session:
            held = claimed(session)
            ran(session, held, 40)
            again(session, held)
            session.execute(update(Job).values(created_at=DatabaseTime(-10_000), started_at=DatabaseTime(-9_000)))
    job = look(database, made)
    assert (job.state, job.claimed_at) == ("queued", None)
    assert 80 <= job.ran_seconds < 90
    with database.writing() as session:
        held = claimed(session)
        ran(session, held, 40)
        queue.release(session, held)
    job = look(database, made)
    assert (job.state, job.failure and job.failure["reason"]) == ("failed", "deadline")
    assert "max_seconds" in str(job.failure)
    assert job.ran_seconds >= 120


def test_a_lost_worker_is_counted_to_the_end_of_its_lease_and_no_further(database: Database) -> None:
    with database.writing() as session:
        made = training(session, max_seconds=1000).id
        held = claimed(session)
        ran(session, held, 5000)
        session.execute(update(Job).values(lease_expires_at=DatabaseTime(-4900)))
        assert queue.expire(session) == [made]
    job = look(database, made)
    assert job.state == "queued"
    assert 90 < job.ran_seconds < 110


def test_a_setback_is_told_and_kept_while_the_job_goes_on(database: Database) -> None:
    held = running(database)
    with database.writing() as session:
        queue.retry(session, held, FAILURE, delay_seconds=600)
    job = look(database, held.job_id)
    assert (job.state, job.setback, job.failure) == ("queued", FAILURE, None)
    assert job.run_after is not None
    assert timedelta(seconds=590) < job.run_after - utc_now() < timedelta(seconds=610)
    with database.reading() as session:
        assert events.after(session, held.job_id, 0)[-1].data["setback"] == FAILURE
    with database.writing() as session:
        session.execute(update(Job).values(run_after=None))
        succeed(session, claimed(session))
    job = look(database, held.job_id)
    assert (job.state, job.setback, job.failure) == ("succeeded", FAILURE, None)


@pytest.mark.parametrize("wrong", [{"finished_at": DatabaseTime()}, {"state": JobState.succeeded}])
def test_the_database_itself_holds_that_a_job_has_an_end_exactly_when_it_has_ended(
    database: Database, wrong: dict[str, object]
) -> None:
    held = running(database)
    with pytest.raises(IntegrityError, match="finished"), database.writing() as session:
        session.execute(update(Job).where(Job.id == held.job_id).values(**wrong))


# The fence


@pytest.mark.parametrize("loss", LOSSES)
def test_a_claim_that_is_lost_can_write_nothing(database: Database, loss: str) -> None:
    held = running(database)
    with database.writing() as session:
        LOSSES[loss](session, held)
    before = facts(database, held.job_id)
    for name, write in WRITES.items():
        with pytest.raises(ClaimLost, match=str(held.job_id)) as caught, database.writing() as session:
            write(session, held)
        assert caught.value.code == "claim_lost"
        assert facts(database, held.job_id) == before, name


def test_a_worker_that_slept_cannot_write_over_the_next_one(database: Database) -> None:
    asleep = running(database, lease_seconds=EXPIRED)
    with database.writing() as session:
        assert queue.expire(session) == [asleep.job_id]
    with database.writing() as session:
        awake = claimed(session)
    assert awake.epoch > asleep.epoch
    before = facts(database, awake.job_id)
    for name, write in WRITES.items():
        with pytest.raises(ClaimLost), database.writing() as session:
            write(session, asleep)
        assert facts(database, awake.job_id) == before, name
    with database.writing() as session:
        assert queue.renew(session, awake, 60) is JobState.running
        assert (queue.is_held(session, asleep), queue.is_held(session, awake)) == (False, True)


def test_a_claim_on_no_job_can_write_nothing(database: Database) -> None:
    held = running(database)
    for stranger in (Claim(held.job_id, held.epoch + 1), Claim(held.job_id, 0), Claim(UUID(int=7), held.epoch)):
        for write in WRITES.values():
            with pytest.raises(ClaimLost), database.writing() as session:
                write(session, stranger)


def test_a_lock_reads_again_what_this_session_has_seen(postgresql_url: str) -> None:
    """Otherwise a worker would end a job on what it knew before somebody asked to cancel it."""
    database = Database(postgresql_url)
    held = running(database)
    with database.writing() as session:
        seen = session.get_one(Job, held.job_id)
        with database.writing() as other:
            jobs.cancel(other, seen.workspace_id, seen.id)
        assert queue.locked(session, held).state is JobState.cancelling
    with database.writing() as session:
        queue.cancelled(session, held)
    assert told(database, held.job_id) == ["queued", "running", "cancelling", "cancelled"]
    database.close()


# Leases


def test_a_lease_that_is_renewed_does_not_expire(database: Database) -> None:
    held = running(database, lease_seconds=EXPIRED)
    with database.writing() as session:
        assert queue.renew(session, held, 60) is JobState.running
    with database.writing() as session:
        assert queue.expire(session) == []
    with database.writing() as session:
        assert queue.renew(session, held, EXPIRED) is JobState.running
    with database.writing() as session:
        assert queue.expire(session) == [held.job_id]


def test_a_lost_worker_costs_an_attempt_until_the_last(database: Database) -> None:
    with database.writing() as session:
        made = training(session, max_attempts=3).id
    for attempt in (1, 2, 3):
        with database.writing() as session:
            assert claimed(session, lease_seconds=EXPIRED).job_id == made
        with database.writing() as session:
            assert queue.expire(session) == [made]
        job = look(database, made)
        assert (job.attempt, job.state) == (attempt, "queued" if attempt < 3 else "failed")
        assert (job.failure is None, job.finished_at is None) == (attempt < 3, attempt < 3)
    assert job.failure is not None
    assert job.failure["reason"] == "worker_lost"
    assert "3 times" in job.failure["detail"]
    assert "worker-1" in job.failure["detail"]
    assert "batch_size" in job.failure["hint"]
    assert told(database, made) == ["queued", "running"] * 3 + ["failed"]
    with database.writing() as session:
        assert queue.expire(session) == []


def test_only_jobs_that_a_worker_holds_expire(database: Database) -> None:
    with database.writing() as session:
        ended = training(session).id
        succeed(session, claimed(session, lease_seconds=EXPIRED))
        waits = training(session).id
        session.execute(update(Job).values(lease_expires_at=DatabaseTime(-1000)))
    with database.writing() as session:
        assert queue.expire(session) == []
    assert (look(database, ended).state, look(database, waits).state) == ("succeeded", "queued")


def test_a_job_being_cancelled_whose_worker_is_lost_is_cancelled(database: Database) -> None:
    held = running(database, lease_seconds=EXPIRED)
    with database.writing() as session:
        jobs.cancel(session, look(database, held.job_id).workspace_id, held.job_id)
    with database.writing() as session:
        assert queue.expire(session) == [held.job_id]
    job = look(database, held.job_id)
    assert (job.state, job.failure) == ("cancelled", None)


def test_sweeps_at_once_take_a_job_back_once(database: Database) -> None:
    with database.writing() as session:
        made = [training(session).id for _ in range(6)]
        for _ in made:
            claimed(session, lease_seconds=EXPIRED)
    together = threading.Barrier(3)

    def sweep() -> list[UUID]:
        together.wait()
        with database.writing() as session:
            return queue.expire(session)

    with ThreadPoolExecutor(3) as pool:
        taken = [one for future in [pool.submit(sweep) for _ in range(3)] for one in future.result()]
    assert sorted(taken) == made
    assert all(told(database, one) == ["queued", "running", "queued"] for one in made)


# What runs


def test_progress_never_goes_back_within_an_attempt(database: Database) -> None:
    held = running(database)
    seen = []
    for reported in (0.2, 0.1, 0.5, 0.4, 7.0):
        with database.writing() as session:
            queue.report_progress(session, held, "training", reported, 3.0)
        seen.append(look(database, held.job_id).progress)
    assert seen == [0.2, 0.2, 0.5, 0.5, 1.0]
    job = look(database, held.job_id)
    assert (job.phase, job.eta_seconds) == ("training", 3.0)
    with database.writing() as session:
        queue.release(session, held)
        claimed(session)
    job = look(database, held.job_id)
    assert (job.progress, job.phase, job.eta_seconds) == (0.0, "starting", None)


@pytest.mark.parametrize(
    ("told_eta", "kept"), [(0.0, 0.0), (7.5, 7.5), (None, None), (-1.0, None), (math.nan, None), (math.inf, None)]
)
def test_an_eta_that_cannot_be_is_none(database: Database, told_eta: float | None, kept: float | None) -> None:
    held = running(database)
    with database.writing() as session:
        queue.report_progress(session, held, "training", 0.5, told_eta)
    assert look(database, held.job_id).eta_seconds == kept


def test_an_epoch_that_is_repeated_replaces_its_metrics(database: Database) -> None:
    first = running(database)
    with database.writing() as session:
        for epoch in (1, 2):
            queue.record_epoch(session, first, {"epoch": epoch, "val_loss": 1.0})
        queue.release(session, first)
        second = claimed(session)
        for epoch in (2, 3):
            queue.record_epoch(session, second, {"epoch": epoch, "val_loss": 0.5})
    with database.reading() as session:
        assert [one.metrics["val_loss"] for one in jobs.metrics(session, first.job_id)] == [1.0, 0.5, 0.5]
        found = events.after(session, first.job_id, 0)
        assert [one.data["epoch"] for one in found if one.type == "epoch"] == [1, 2, 2, 3]
    told(database, first.job_id)


def test_listeners_go_on_after_the_number_they_have(database: Database) -> None:
    held = running(database)
    with database.writing() as session:
        for epoch in range(1, 6):
            queue.record_epoch(session, held, {"epoch": epoch})
    with database.reading() as session:
        assert [one.seq for one in events.after(session, held.job_id, 3)] == [4, 5, 6, 7]
        assert [one.seq for one in events.after(session, held.job_id, 0, limit=2)] == [1, 2]
        assert events.after(session, held.job_id, 7) == []


def test_writes_at_once_number_their_events_without_gap_or_double(database: Database) -> None:
    held = running(database)
    together = threading.Barrier(4)

    def write(worker: int) -> None:
        together.wait()
        for number in range(5):
            with database.writing() as session:
                queue.record_epoch(session, held, {"epoch": worker * 5 + number})

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(write, worker) for worker in range(4)]:
            future.result()
    told(database, held.job_id)
    assert look(database, held.job_id).event_seq == 22


def test_the_last_two_checkpoints_are_kept(database: Database) -> None:
    held = running(database)
    for epoch, name in enumerate("abcd", start=1):
        with database.writing() as session:
            checkpoint(session, held, name, epoch)
    with database.reading() as session:
        found = checkpoints.newest_first(session, held.job_id)
        assert [(one.sha256, one.epoch, one.step, one.size) for one in found] == [
            (sha("d"), 4, 400, 10),
            (sha("c"), 3, 300, 10),
        ]
        assert set(jobs.referenced_blobs(session)) == {sha("c"), sha("d")}


def test_the_best_checkpoint_is_kept_beside_the_last_two(database: Database) -> None:
    held = running(database)
    for epoch, (name, best) in enumerate([("a", True), ("b", True), ("c", False), ("d", False), ("e", False)], 1):
        with database.writing() as session:
            queue.record_checkpoint(session, held, Blob(sha(name), 10), epoch, 0, best)
    with database.reading() as session:
        assert [one.sha256 for one in checkpoints.newest_first(session, held.job_id)] == [sha("e"), sha("d"), sha("b")]
        assert set(jobs.referenced_blobs(session)) == {sha("b"), sha("d"), sha("e")}


def test_what_diverged_keeps_its_last_good_checkpoint(database: Database) -> None:
    held = running(database)
    for name in "abc":
        with database.writing() as session:
            checkpoint(session, held, name)
    with database.writing() as session:
        queue.fail(session, held, FAILURE | {"reason": "diverged"})
    assert facts(database, held.job_id)["checkpoints"] == [sha("c")]
    kept = {"epoch": 1, "step": 100, "sha256": sha("c"), "size": 10}
    assert look(database, held.job_id).failure == FAILURE | {"reason": "diverged", "checkpoint": kept}


def test_the_newest_checkpoint_is_told_by_the_databases_clock(database: Database) -> None:
    """A machine whose clock ran ahead made a checkpoint; then the job moved to one whose clock is right."""
    held = running(database)
    with database.writing() as session:
        ahead = UUID("ffffffff-ffff-7fff-bfff-ffffffffffff")
        early = DatabaseTime(-60)
        session.add(
            Checkpoint(
                id=ahead,
                job_id=held.job_id,
                attempt=1,
                epoch=1,
                step=1,
                sha256=sha("a"),
                size=1,
                created_at=early,
                best=False,
            )
        )
    for name in "bc":
        with database.writing() as session:
            checkpoint(session, held, name)
    with database.reading() as session:
        assert [one.sha256 for one in checkpoints.newest_first(session, held.job_id)] == [sha("c"), sha("b")]


@pytest.mark.parametrize("again", ["release", "retry"])
def test_checkpoints_outlive_their_attempt(database: Database, again: str) -> None:
    held = running(database)
    with database.writing() as session:
        checkpoint(session, held)
        WRITES[again](session, held)
        claimed(session)
    assert facts(database, held.job_id)["checkpoints"] == [sha("checkpoint")]


# Ends


def test_giving_a_job_back_does_not_count_as_an_attempt(database: Database) -> None:
    with database.writing() as session:
        made = training(session, max_attempts=1).id
    for _ in range(4):
        with database.writing() as session:
            queue.release(session, claimed(session))
        job = look(database, made)
        assert (job.state, job.attempt, job.phase, job.finished_at) == ("queued", 0, None, None)
    with database.writing() as session:
        assert claimed(session).epoch > 4


def test_trying_again_counts_and_ends_with_the_failure(database: Database) -> None:
    with database.writing() as session:
        made = training(session, max_attempts=2).id
    for attempt, state in ((1, "queued"), (2, "failed")):
        with database.writing() as session:
            retry(session, claimed(session))
        job = look(database, made)
        assert (job.attempt, job.state) == (attempt, state)
    assert job.failure == FAILURE


@pytest.mark.parametrize(
    ("write", "state"), [("succeed", "succeeded"), ("fail", "failed"), ("retry", "failed"), ("expire", "failed")]
)
def test_what_is_true_of_every_end(database: Database, write: str, state: str) -> None:
    held = running(database, max_attempts=1, lease_seconds=EXPIRED)
    with database.writing() as session:
        queue.report_progress(session, held, "training", 0.5, 9.0)
        checkpoint(session, held)
    with database.writing() as session:
        queue.expire(session) if write == "expire" else WRITES[write](session, held)
    job = look(database, held.job_id)
    assert job.state == state
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.finished_at >= job.started_at
    assert job.eta_seconds is None
    assert (job.result is not None, job.failure is not None) == (state == "succeeded", state == "failed")
    assert job.progress == (1.0 if state == "succeeded" else 0.5)
    assert facts(database, held.job_id)["checkpoints"] == []
    with database.reading() as session:
        last = events.after(session, held.job_id, 0)[-1].data
        assert list(jobs.referenced_blobs(session)) == []
    assert {key: last.get(key) for key in ("state", "result", "failure")} == {
        "state": state,
        "result": job.result,
        "failure": job.failure,
    }


@pytest.mark.parametrize("write", ["fail", "retry", "cancelled", "release", "result"])
def test_whatever_a_job_being_cancelled_comes_to_it_is_cancelled(database: Database, write: str) -> None:
    held = running(database)
    with database.writing() as session:
        jobs.cancel(session, look(database, held.job_id).workspace_id, held.job_id)
    with database.writing() as session:
        assert queue.renew(session, held, 60) is JobState.cancelling
        WRITES[write](session, held)
    job = look(database, held.job_id)
    assert (job.state, job.failure, job.result) == ("cancelled", None, None)
    assert told(database, held.job_id) == ["queued", "running", "cancelling", "cancelled"]


def test_a_worker_does_not_cancel_or_succeed_out_of_turn(database: Database) -> None:
    held = running(database)
    with pytest.raises(Conflict, match="cannot become cancelled"), database.writing() as session:
        queue.cancelled(session, held)
    with database.writing() as session:
        jobs.cancel(session, look(database, held.job_id).workspace_id, held.job_id)
    with pytest.raises(Conflict, match="cannot become succeeded"), database.writing() as session:
        succeed(session, held)
    assert look(database, held.job_id).state == "cancelling"


@pytest.mark.parametrize(
    ("write", "reason"),
    [("fail", "internal"), ("retry", "internal"), ("expire", "worker_lost"), ("cancelled", "cancelled")],
)
def test_an_ingestion_that_ends_without_a_result_fails_its_dataset(database: Database, write: str, reason: str) -> None:
    held, dataset_id = reading(database, max_attempts=1, lease_seconds=EXPIRED)
    with database.writing() as session:
        if write == "cancelled":
            jobs.cancel(session, look(database, held.job_id).workspace_id, held.job_id)
        queue.expire(session) if write == "expire" else WRITES[write](session, held)
    with database.reading() as session:
        dataset = session.get_one(Dataset, dataset_id)
        assert (dataset.state, dataset.archive_sha256) == (DatasetState.failed, None)
        assert dataset.failure is not None
        assert dataset.failure["reason"] == reason


def test_an_ingestions_report_reaches_its_dataset(database: Database) -> None:
    held, dataset_id = reading(database)
    with database.writing() as session:
        queue.fail(session, held, FAILURE, {"files": 3})
    with database.reading() as session:
        assert session.get_one(Dataset, dataset_id).report == {"files": 3}


@pytest.mark.parametrize("again", ["release", "retry", "expire"])
def test_an_ingestion_that_starts_again_leaves_its_dataset_alone(database: Database, again: str) -> None:
    held, dataset_id = reading(database, lease_seconds=EXPIRED)
    with database.writing() as session:
        queue.expire(session) if again == "expire" else WRITES[again](session, held)
    with database.reading() as session:
        dataset = session.get_one(Dataset, dataset_id)
        assert (dataset.state, dataset.archive_sha256 is None) == (DatasetState.processing, False)


def test_a_failed_training_leaves_its_dataset_alone(database: Database) -> None:
    held = running(database)
    with database.writing() as session:
        fail(session, held)
    with database.reading() as session:
        assert session.get_one(Dataset, session.get_one(Job, held.job_id).dataset_id).state is DatasetState.ready


def test_for_how_long_unfinished_jobs_may_have_put_what_no_row_names(database: Database) -> None:
    """A reading of an upload may have since it began; a training for minutes; a job that never ran has put nothing."""
    with database.writing() as session:
        assert queue.unwritten_for(session) == 0
        second, first = training(session), ingestion(session, new_dataset(session, "other"))
        assert queue.unwritten_for(session) == 0
        read, trained = claimed(session, "ingest"), claimed(session, "train")
        for job, seconds in ((first, 50_000.0), (second, 90_000.0)):
            session.execute(update(Job).where(Job.id == job.id).values(started_at=DatabaseTime(-seconds)))
    with database.writing() as session:
        assert 50_000 < queue.unwritten_for(session) < 60_000
        queue.release(session, read)
        assert 50_000 < queue.unwritten_for(session) < 60_000
        jobs.cancel(session, first.workspace_id, first.id)
        assert 0 < queue.unwritten_for(session) < 3_600
        fail(session, trained)
        assert queue.unwritten_for(session) == 0


def test_a_deletion_and_the_end_of_an_ingestion_do_not_wait_for_each_other(postgresql_url: str) -> None:
    """Both write the job and the dataset. The worker has the job first; so has the deletion."""
    database = Database(postgresql_url)
    held, dataset_id = reading(database)
    begun = threading.Event()

    def delete() -> JobState:
        with database.writing() as session:
            dataset = session.get_one(Dataset, dataset_id)
            begun.set()
            jobs.release_dataset(session, dataset)
            return session.get_one(Job, held.job_id).state

    with ThreadPoolExecutor(1) as pool:
        with database.writing() as session:
            queue.locked(session, held)
            deleting = pool.submit(delete)
            begun.wait()
            _wait_until_blocked(database, deleting)
            queue.finish(session, held, ingested("1.jpg").to_dict())
        assert deleting.result() is JobState.succeeded
    assert look(database, held.job_id).state in TERMINAL
    database.close()


def _wait_until_blocked(database: Database, other: Future[JobState]) -> None:
    """Until a transaction waits for another's lock, or there is none any more that could."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    blocked = 0
    while not blocked and not other.done():
        with database.reading() as session:
            blocked = session.scalar(text(waiting)) or 0
