"""The fields that a request for any kind of job has: when it may run, how often, for how long."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("the time is out of range; use one between the years 1 and 9999, UTC") from None


class Scheduled(BaseModel):
    """The fields of a request for a job that say when it is run."""

    priority: int = Field(
        default=0,
        ge=-100,
        le=100,
        description="A higher priority runs first; equal ones run in the order of submission.",
    )
    run_after: Annotated[AwareDatetime, AfterValidator(_utc)] | None = Field(
        default=None,
        description="Earliest start (RFC 3339), by the database's clock.",
        examples=["2030-01-31T22:00:00Z"],
    )
    max_attempts: int | None = Field(
        default=None,
        ge=1,
        le=20,
        description="Attempts until a job that loses its worker fails; the server's number if left out.",
    )
    max_seconds: float | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="Running time of all attempts together after which the job fails with `deadline`.",
    )
