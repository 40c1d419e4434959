"""Writes of a worker that holds something under a lease: tried again while the database is away and the lease runs."""

import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID

from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.errors import Unavailable
from app.core.logging import log
from app.jobs.queue import ClaimLost

T = TypeVar("T")


def write_within(database: Database, write: Callable[[Session], T], lease_ends: float, job_id: UUID) -> T:
    """Write in one transaction. Raises `ClaimLost` when the monotonic clock comes to `lease_ends` without it."""
    while True:
        try:
            with database.writing() as session:
                return write(session)
        except Unavailable as error:
            if time.monotonic() >= lease_ends:
                raise ClaimLost("The database was away for as long as the lease.") from error
            log.warning("database_away", job=str(job_id), detail=error.detail)
            time.sleep(0.5)
