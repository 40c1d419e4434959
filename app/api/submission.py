"""Queue a job and respond to its caller."""

from collections.abc import Callable
from uuid import UUID

from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.api.deps import Services
from app.api.idempotency import answer_once, fingerprint
from app.api.job_out import JobOut
from app.api.views import job_view
from app.core.errors import Unavailable
from app.jobs.orm import Job


def submit_once(
    services: Services,
    workspace_id: UUID,
    key: str | None,
    route: str,
    body: BaseModel,
    submit: Callable[[Session], Job],
) -> JSONResponse:
    """Return a 202 with the job that `submit` queues or, if `key` was used before on this route, the first response."""
    with services.database.writing() as session:
        if key is not None:  # the answer is kept in the job's transaction

            def create() -> JSONResponse:
                return _accepted(job_view(session, submit(session), services.settings))

            return answer_once(session, workspace_id, key, fingerprint(route, body.model_dump()), create)
        job = submit(session)
    # Workers have been rung: they need not wait for what there is to say of the job.
    try:
        with services.database.reading() as session:
            return _accepted(job_view(session, job, services.settings))
    except Unavailable:  # the job is queued all the same
        return _accepted(JobOut.model_validate(job))


def _accepted(view: JobOut) -> JSONResponse:
    return JSONResponse(view.model_dump(mode="json"), status_code=202, headers={"Location": f"/v1/jobs/{view.id}"})
