"""Housekeeping: take back expired jobs, free what nothing refers to."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from sqlalchemy import delete

from app.api.orm import KEPT_SECONDS, IdempotentAnswer
from app.core import outbox
from app.core.clock import DatabaseTime
from app.core.database import Database
from app.core.ids import parse_id
from app.core.logging import log
from app.core.settings import Settings
from app.datasets import uploads
from app.jobs import checkpoints, queue, workers
from app.jobs import service as jobs
from app.jobs.queue import Claim
from app.operations.references import referenced_blobs
from app.storage import BlobStore


def take_back_expired(database: Database) -> list[UUID]:
    """Queue, or fail, every job whose worker is lost."""
    with database.writing() as session:
        expired = queue.expire(session)
    for job_id in expired:
        log.warning("lease_expired", job=str(job_id))
    return expired


def free_blobs(database: Database, store: BlobStore, grace_seconds: float) -> int:
    """Delete blobs that no row refers to. Returns how many.

    A blob comes before the row that names it, so young ones are let be: those younger than `grace_seconds`, or that a
    job under way may have put. Ages are told by the clocks of the store and of the database, since this machine's may
    be wrong.
    """
    with database.reading() as session:
        unwritten = queue.unwritten_for(session)
    cutoff = store.now() - timedelta(seconds=max(grace_seconds, unwritten))
    candidates = {blob.sha256 for blob in store.list(older_than=cutoff)}
    with database.reading() as session:
        candidates -= referenced_blobs(session)
    # One that was put again since it was listed is somebody's: it is young now, and stays.
    deleted = sum(store.delete(sha256, older_than=cutoff) for sha256 in candidates)
    store.discard_unfinished(older_than=cutoff)
    return deleted


def free_checkpoints(database: Database, store: BlobStore, replaced: set[str], age_seconds: float) -> set[str]:
    """Delete replaced checkpoints that no job refers to and that were last put before so many seconds.

    Does not wait for their job to end. Returns those that need no further look: deleted now, or another job's.
    """
    cutoff = store.now() - timedelta(seconds=age_seconds)
    with database.reading() as session:
        needed = checkpoints.referenced(session, replaced)
    return needed | {sha256 for sha256 in replaced - needed if store.delete(sha256, older_than=cutoff)}


def free_scratch(database: Database, settings: Settings) -> int:
    """Remove working files whose process is gone: a job's when its claim ended, others by their age."""
    removed = 0
    cutoff = datetime.now(UTC).timestamp() - settings.blob_grace_seconds
    for path in settings.scratch.glob("*") if settings.scratch.is_dir() else ():
        held = _claim_of(path)
        if held is not None:
            with database.reading() as session:
                orphaned = not queue.is_held(session, held)
        else:
            orphaned = _changed_before(path, cutoff)
        if orphaned:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            removed += 1
    return removed


def _claim_of(path: Path) -> Claim | None:
    """Return the claim that a job's scratch folder is named after; None for any other."""
    kind, _, rest = path.name.partition("-")
    job_id, _, epoch = rest.rpartition("-")
    epoch = epoch.partition(".")[0]  # of another machine's job the folder is named after the place as well
    known = parse_id(job_id)
    return Claim(known, int(epoch)) if kind == "job" and known and epoch.isdecimal() else None


def _changed_before(path: Path, cutoff: float) -> bool:
    try:
        return path.stat().st_mtime < cutoff
    except FileNotFoundError:  # its user has just removed it
        return False


def forget_answers(database: Database) -> None:
    """Forget idempotent answers that are past their time."""
    with database.writing() as session:
        session.execute(delete(IdempotentAnswer).where(IdempotentAnswer.created_at < DatabaseTime(-KEPT_SECONDS)))


def forget_jobs(database: Database, days: float) -> int:
    """Forget jobs that ended so many days ago, a batch a transaction; 0 days: never. Returns how many."""
    forgotten = 0
    while days > 0:
        with database.writing() as session:
            batch = jobs.forget(session, ended_before=DatabaseTime(-days * 86_400))
        forgotten += batch
        if batch == 0:
            break
    return forgotten


def forget_events(database: Database, days: float) -> int:
    """Forget events that are so many days old, a batch a transaction; 0 days: never. Returns how many.

    Those of jobs stay: they go with their job.
    """
    forgotten = 0
    while days > 0:
        with database.writing() as session:
            batch = outbox.forget(session, before=DatabaseTime(-days * 86_400))
        forgotten += batch
        if batch == 0:
            break
    return forgotten


def collect_garbage(database: Database, store: BlobStore, settings: Settings) -> None:
    blobs = free_blobs(database, store, settings.blob_grace_seconds)
    files = free_scratch(database, settings) + uploads.remove_expired(database, settings.uploads)
    forget_answers(database)
    with database.writing() as session:
        workers.forget_lost(session)
    forgotten = forget_jobs(database, settings.job_retention_days)
    events = forget_events(database, settings.event_retention_days)
    if blobs or files or forgotten or events:
        log.info("garbage_collected", blobs=blobs, files=files, jobs=forgotten, events=events)
