"""The kind of job that adds, as the queue and the workers know it."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.jobs.orm import Job
from app.jobs.types import JobType, Resource
from tests.support.toy_kind.schemas import AddMetrics, AddResult, AddSpec


def _keep(session: Session, job: Job, body: dict[str, Any]) -> AddResult:
    return AddResult.model_validate(body)


def _sums(result: Mapping[str, Any]) -> Iterable[str]:
    return [result["file"]["sha256"]]


ADD = JobType(
    name="tally",
    noun="additions",
    slot=Resource.cpu,
    spec=AddSpec,
    result=AddResult,
    run="tests.support.toy_kind.compute:add",
    finish=_keep,
    result_blobs=_sums,
    metrics=AddMetrics,
)
