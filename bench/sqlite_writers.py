"""Let eight processes write job rows to one SQLite file for a minute, as workers and an API do, and count failures.

Each submits, claims, renews, reports, keeps metrics and a checkpoint, and ends a job, over and over, through the
queue's own functions; every call is a transaction. Prints one JSON line, and fails if a transaction failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app import work  # noqa: F401  (the queue asks what kinds of job there are)
from app.core.database import Database
from app.core.errors import GraftError
from app.core.migrations import migrate
from app.datasets.service import latest_versions
from app.jobs import claiming, events, queue
from app.jobs.orm import Job
from app.jobs.queue import Claim
from app.storage import Blob

LEASE = 600.0  # seconds


def contend(url: str, processes: int, seconds: float) -> dict[str, Any]:
    """Return what so many processes did: jobs ended, transactions, the failed ones, how long one took."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.Queue()
    workspace_id, dataset_id, version_id = _dataset(url)
    arguments = (url, workspace_id, dataset_id, version_id, seconds, told)
    writers = [context.Process(target=_write, args=arguments) for _ in range(processes)]
    for writer in writers:
        writer.start()
    answers = [told.get(timeout=seconds + 300) for _ in writers]
    for writer in writers:
        writer.join()
    took = sorted(one for _, times, _ in answers for one in times)
    return {
        "processes": processes,
        "seconds": seconds,
        "jobs": sum(jobs for jobs, _, _ in answers),
        "transactions": len(took),
        "failures": [failure for _, _, failures in answers for failure in failures],
        "transaction_ms": {"median": round(1000 * statistics.median(took), 1), "worst": round(1000 * took[-1], 1)},
    }


def _dataset(url: str) -> tuple[UUID, UUID, UUID]:
    from tests.support.factories import ready_dataset, workspace

    database = Database(url)
    with database.writing() as session:
        dataset = ready_dataset(session)
        found = workspace(session).id, dataset.id, latest_versions(session, [dataset.id])[dataset.id].id
    database.close()
    return found


def _write(url: str, workspace_id: UUID, dataset_id: UUID, version_id: UUID, seconds: float, told: Any) -> None:
    database = Database(url)
    took: list[float] = []
    failures: list[str] = []
    jobs = 0

    def write(body: Callable[[Session], Any]) -> Any:
        began = time.perf_counter()
        try:
            with database.writing() as session:
                return body(session)
        except GraftError as error:
            failures.append(error.detail)
            return None
        finally:
            took.append(time.perf_counter() - began)

    def submit(session: Session) -> None:
        job = Job(
            workspace_id=workspace_id,
            dataset_id=dataset_id,
            dataset_version_id=version_id,
            kind="train",
            spec={},
            max_attempts=3,
        )
        session.add(job)
        session.flush()
        events.tell_state(session, job)

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        write(submit)
        job = write(lambda session: claiming.claim(session, ["train"], "bench", LEASE))
        if job is None:
            continue
        held = Claim(job.id, job.epoch)
        for body in (
            lambda session, held=held: queue.renew(session, held, LEASE),
            lambda session, held=held: queue.report_progress(session, held, "training", 0.5, 1.0),
            lambda session, held=held: queue.record_epoch(session, held, {"epoch": 1}),
            lambda session, held=held: queue.record_checkpoint(session, held, Blob("0" * 64, 1), 1, 1),
            lambda session, held=held: queue.succeed(session, queue.locked(session, held), {}),
        ):
            write(body)
        jobs += 1
    database.close()
    told.put((jobs, took, failures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    from bench.rounds import emit

    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'graftwork.db'}"
        database = Database(url)
        migrate(database)
        database.close()
        figures = contend(url, given.processes, given.seconds)
    emit("sqlite_writers", **figures)
    sys.exit(bool(figures["failures"]))


if __name__ == "__main__":
    main()
