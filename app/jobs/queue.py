"""Write to a job's row that a worker holds: renew, report under the fence, end it; and take lost jobs back."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime
from app.core.errors import Conflict
from app.jobs import checkpoints, events
from app.jobs.orm import EpochMetrics, Job
from app.jobs.states import HELD, TERMINAL, FailureReason, JobState, check_transition
from app.jobs.types import KNOWN
from app.storage import Blob

_WRITTEN_WITHIN = 600.0  # seconds at most from a blob to the row that names it, of kinds that do not put early
_CLOCKS_APART = 60.0  # seconds, at most: that of the store against that of the database
_LONGEST_ETA = 366 * 86_400.0  # seconds; what claims to take longer is not known, rather than so slow


class ClaimLost(Conflict):
    """Somebody else owns the job now, or it has ended: what this worker computes counts for nothing."""

    code = "claim_lost"


@dataclass(frozen=True, slots=True)
class Claim:
    """A worker's right to one job. It ends when the row's epoch moves on."""

    job_id: UUID
    epoch: int


def renew(session: Session, held: Claim, lease_seconds: float) -> JobState:
    """Keep the lease. Returns the state: `cancelling` asks the worker to stop."""
    state: JobState | None = session.scalar(
        update(Job)
        .where(Job.id == held.job_id, Job.epoch == held.epoch, Job.state.in_(HELD))
        .values(lease_expires_at=DatabaseTime(lease_seconds))
        .returning(Job.state)
    )
    if state is None:
        raise _lost(held)
    return state


def locked(session: Session, held: Claim) -> Job:
    """Return the row, locked until the transaction ends. Raises `ClaimLost` unless the claim still stands."""
    query = select(Job).where(Job.id == held.job_id, Job.epoch == held.epoch, Job.state.in_(HELD))
    # What this session read before it had the lock may be out of date.
    job = session.scalar(query.with_for_update().execution_options(populate_existing=True))
    if job is None:
        raise _lost(held)
    return job


def report_progress(session: Session, held: Claim, phase: str, progress: float, eta_seconds: float | None) -> None:
    """Publish how far the job is; within an attempt it never goes back."""
    job = locked(session, held)
    job.phase = phase
    job.progress = max(job.progress, min(progress, 1.0))
    sane = eta_seconds is not None and 0 <= eta_seconds <= _LONGEST_ETA  # no comparison holds for NaN
    job.eta_seconds = eta_seconds if sane else None


def record_epoch(session: Session, held: Claim, metrics: dict[str, Any]) -> None:
    """Keep one finished epoch's metrics and tell listeners."""
    job = locked(session, held)
    session.merge(EpochMetrics(job_id=job.id, epoch=metrics["epoch"], attempt=job.attempt, metrics=metrics))
    events.tell(session, job, "epoch", metrics)


def record_checkpoint(session: Session, held: Claim, blob: Blob, epoch: int, step: int, best: bool = False) -> set[str]:
    """Keep where the run can go on, once its bytes are safely in the blob store.

    The last two are kept, and the newest that was the `best` when it was written. Returns the SHA-256 of the others.
    """
    return checkpoints.keep(session, locked(session, held), blob, epoch, step, best)


def finish(session: Session, held: Claim, body: dict[str, Any]) -> None:
    """End the job with what its child made, or as cancelled where that was asked for before the child was done.

    What the result names is written in the same transaction, so it exists exactly when the job succeeded. Raises
    `ClaimLost`.
    """
    job = locked(session, held)
    if job.state is JobState.cancelling:
        end(session, job, JobState.cancelled)
        return
    result = KNOWN.get(job.kind).finish(session, job, body)
    succeed(session, job, result.model_dump(mode="json", exclude_unset=True))


def succeed(session: Session, job: Job, result: dict[str, Any]) -> None:
    """End the job with its result. What `result` names is written in the same transaction."""
    job.result = result
    job.progress = 1.0
    end(session, job, JobState.succeeded)


def fail(session: Session, held: Claim, failure: dict[str, Any], report: dict[str, Any] | None = None) -> None:
    """End the job without a result. `failure` holds reason, detail and hint; `report` is what its kind keeps beside
    that, if anything."""
    job = locked(session, held)
    if job.state is JobState.cancelling:
        end(session, job, JobState.cancelled)
        return
    job.failure = failure
    end(session, job, JobState.failed, report)


def retry(session: Session, held: Claim, failure: dict[str, Any], delay_seconds: float = 0.0) -> None:
    """Queue a job again whose computation broke off, or fail it with `failure` after its last attempt.

    `delay_seconds` passes before it may be claimed, where what is wrong needs time to be mended.
    """
    job = locked(session, held)
    if job.state is JobState.running and job.attempt < job.max_attempts:
        if delay_seconds > 0:
            job.run_after = DatabaseTime(delay_seconds)
        _requeue(session, job, failure)
    else:
        fail(session, held, failure)


def cancelled(session: Session, held: Claim) -> None:
    """End a job that was asked to stop, once its computation is gone."""
    end(session, locked(session, held), JobState.cancelled)


def release(session: Session, held: Claim, setback: dict[str, Any] | None = None, delay_seconds: float = 0.0) -> None:
    """Give the job back, to be gone on with from its last checkpoint; this does not count as an attempt.

    `setback` says what kept it from running, if anything did; others have `delay_seconds` to go ahead of it.
    """
    job = locked(session, held)
    if job.state is JobState.cancelling:
        end(session, job, JobState.cancelled)
        return
    job.attempt -= 1
    if delay_seconds > 0:
        job.run_after = DatabaseTime(delay_seconds)
    _requeue(session, job, setback)


def expire(session: Session) -> list[UUID]:
    """Take back every job whose worker let the lease run out. Returns their ids.

    Jobs of a kind that newer code brought are left to it: what their end changes is not known here.
    """
    overdue = Job.state.in_(HELD), Job.lease_expires_at < DatabaseTime(), Job.kind.in_(KNOWN.names())
    jobs = session.scalars(select(Job).where(*overdue).with_for_update(skip_locked=True)).all()
    for job in jobs:
        if job.state is JobState.cancelling:
            end(session, job, JobState.cancelled)
        elif job.attempt < job.max_attempts:
            _requeue(session, job, _worker_lost(job))
        else:
            job.failure = _worker_lost(job)
            end(session, job, JobState.failed)
    return [job.id for job in jobs]


def _worker_lost(job: Job) -> dict[str, Any]:
    times = "once" if job.attempt == 1 else f"{job.attempt} times"
    return {
        "reason": FailureReason.worker_lost,
        "detail": f"The worker was lost {times} while it ran this job, at last on {job.worker}: it died, or could not "
        "reach the database for a whole lease.",
        "hint": "Look at that machine's memory and logs; a smaller batch_size or input_size needs less memory.",
    }


def is_held(session: Session, held: Claim) -> bool:
    query = select(Job.id).where(Job.id == held.job_id, Job.epoch == held.epoch, Job.state.in_(HELD))
    return session.scalar(query) is not None


def unwritten_for(session: Session) -> float:
    """Return for how many seconds unfinished jobs may have put blobs that no row names yet, by the database's clock.

    For a kind that puts blobs early it is the time since the first of them began, else a few minutes at most.
    """
    begun = select(Job.kind, func.min(Job.started_at)).where(Job.state.not_in(TERMINAL), Job.started_at.is_not(None))
    now = session.execute(select(DatabaseTime())).scalar_one()
    ages = [0.0]
    for kind, first in session.execute(begun.group_by(Job.kind)):
        assert first is not None
        age = (now - first).total_seconds() + _CLOCKS_APART
        known = KNOWN.find(kind)
        early = known is None or known.puts_early  # what newer code's kinds do is not known here
        ages.append(age if early else min(age, _WRITTEN_WITHIN))
    return max(ages)


def end(session: Session, job: Job, state: JobState, report: dict[str, Any] | None = None) -> None:
    """Put a job into a terminal state, with everything that has to be true from then on.

    Raises `Conflict` for a job of a kind that newer code brought.
    """
    kind = KNOWN.get(job.kind)
    check_transition(job.state, state)
    assert state in TERMINAL
    _stop_clock(session, job)
    job.state = state
    job.finished_at = DatabaseTime()
    job.eta_seconds = None
    job.epoch += 1
    checkpoints.let_go(session, job)
    kind.ended(session, job, report)
    events.tell_state(session, job)
    session.flush()


def _requeue(session: Session, job: Job, setback: dict[str, Any] | None = None) -> None:
    check_transition(job.state, JobState.queued)
    _stop_clock(session, job)
    if setback is not None:
        job.setback = setback
    if job.max_seconds is not None and job.ran_seconds >= job.max_seconds:
        job.failure = past_deadline(job.max_seconds)
        end(session, job, JobState.failed)
        return
    job.state = JobState.queued
    job.epoch += 1
    job.phase = None
    job.eta_seconds = None
    events.tell_state(session, job)
    session.flush()


def _stop_clock(session: Session, job: Job) -> None:
    """Count the time of the attempt that is over, up to where its worker was last known to live."""
    if job.claimed_at is None:
        return
    now = session.execute(select(DatabaseTime())).scalar_one()
    job.ran_seconds += max((min(now, job.lease_expires_at) - job.claimed_at).total_seconds(), 0.0)
    job.claimed_at = None


def past_deadline(max_seconds: float) -> dict[str, Any]:
    return {
        "reason": FailureReason.deadline,
        "detail": f"The job ran for max_seconds ({max_seconds:g} s, all attempts together) and was ended.",
        "hint": "Give it more max_seconds, or less to do: fewer epochs or images, a smaller input_size, train='head'.",
    }


def _lost(held: Claim) -> ClaimLost:
    return ClaimLost(f"Job {held.job_id} is no longer held under epoch {held.epoch}.")
