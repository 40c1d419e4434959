"""Keep checkpoints: the last two and the best while a job runs, and the last good one if it diverged."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.orm import Checkpoint, Job
from app.jobs.states import FailureReason, JobState
from app.storage import Blob


def newest_first(session: Session, job_id: UUID) -> Sequence[Checkpoint]:
    # By the database's clock first: ids tell the time of the machine that made them, and a job may change machines.
    newest = Checkpoint.created_at.desc(), Checkpoint.id.desc()
    return session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(*newest)).all()


def keep(session: Session, job: Job, blob: Blob, epoch: int, step: int, best: bool) -> set[str]:
    """Add a checkpoint, and delete the rows of those that are neither among the last two nor the newest `best` one.

    Returns the SHA-256 of the deleted ones.
    """
    before = newest_first(session, job.id)
    earlier_best = [] if best else [row for row in before if row.best][:1]
    replaced = [row for row in before[1:] if row not in earlier_best]
    for row in replaced:
        session.delete(row)
    session.add(
        Checkpoint(
            job_id=job.id, attempt=job.attempt, epoch=epoch, step=step, best=best, sha256=blob.sha256, size=blob.size
        )
    )
    return {row.sha256 for row in replaced}


def referenced(session: Session, candidates: set[str]) -> set[str]:
    """Return the candidates that some job may still go on from."""
    return set(session.scalars(select(Checkpoint.sha256).where(Checkpoint.sha256.in_(candidates))))


def let_go(session: Session, job: Job) -> None:
    """Delete the rows of a job that has ended, but for the last good one of a run that diverged."""
    kept = newest_first(session, job.id)
    if job.state is JobState.failed and job.failure and job.failure["reason"] == FailureReason.diverged and kept:
        last = kept[0]
        place = {"epoch": last.epoch, "step": last.step, "sha256": last.sha256, "size": last.size}
        job.failure = {**job.failure, "checkpoint": place}
        kept = kept[1:]
    for row in kept:
        session.delete(row)
