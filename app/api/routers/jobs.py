"""Training jobs: submit, watch, cancel."""

import json
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any
from uuid import UUID

import anyio
from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api.deps import (
    Cursor,
    IdempotencyKey,
    Limit,
    Reader,
    ReadSession,
    Services,
    ServicesDep,
    Wait,
    Writer,
    WriteSession,
)
from app.api.downloads import blob_response
from app.api.routes import Route
from app.api.submission import submit_once
from app.api.views import ListOut, job_view, job_views, problems
from app.api.waiting import until
from app.core.errors import Unavailable
from app.jobs import events
from app.jobs import service as jobs
from app.jobs.orm import Job, JobEvent
from app.jobs.schemas import EpochOut, JobOut
from app.jobs.states import TERMINAL, JobKind, JobState
from app.registry import service as registry
from app.registry.mislabels import likely_mislabels
from app.trainings.base_model import Base
from app.trainings.plan import plan
from app.trainings.plan_schemas import PlanOut
from app.trainings.schemas import TrainRequest
from app.vision.settings.config import TrainConfig

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=Route)

_LOOK_EVERY = 0.3  # seconds between looks for new events
_SILENCE = 15.0  # seconds until a comment says that the connection lives: proxies close what is silent for long
_LOOK_AGAIN_AFTER = 2.0  # seconds, where the database did not answer


@router.post(
    "", status_code=202, response_model=JobOut, responses=problems(400, 409, 422, 429), summary="Train a model"
)
def create_job(body: TrainRequest, writer: Writer, services: ServicesDep, key: IdempotencyKey = None) -> Any:
    """Only `dataset` is required. `GET /v1/jobs/{id}?wait=60` waits for the end, `/events` streams it; the finished
    job's `result.model_id` is the model."""
    base, config = _resolved(body, services, writer.workspace_id)

    def submit(session: Session) -> Job:
        if base is not None:  # deleted since, it is not there; and from here on it cannot be
            registry.base_of(session, writer.workspace_id, str(base.model_id), lock=True)
        limits = services.settings.max_attempts, services.settings.max_queued_jobs
        return jobs.submit_training(session, services.doorbell, writer.workspace_id, body, config, *limits, base)

    return submit_once(services, writer.workspace_id, key, "POST /v1/jobs", body, submit)


def _resolved(body: TrainRequest, services: Services, workspace_id: UUID) -> tuple[Base | None, TrainConfig]:
    base = None
    if body.base_model is not None:
        with services.database.reading() as session:
            base = registry.base_of(session, workspace_id, body.base_model)
    return base, jobs.plan_training(body, services.weights, base)


@router.post(":plan", responses=problems(400, 409, 422), summary="Say what a training would do")
def plan_job(body: TrainRequest, reader: Reader, services: ServicesDep) -> PlanOut:
    """Takes what `POST /v1/jobs` takes, answers what would be trained, on what, with what faults in the data, at what
    expense, and whether and when it would start. Nothing is queued or written."""
    base, config = _resolved(body, services, reader.workspace_id)
    with services.database.reading() as session:
        opinions = partial(likely_mislabels, session, services.store, reader.workspace_id)
        return plan(session, services.store, reader.workspace_id, body, config, services.settings, base, opinions)


@router.get("", responses=problems(422), summary="List jobs")
def list_jobs(
    reader: Reader,
    session: ReadSession,
    services: ServicesDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: Annotated[
        JobKind | None, Query(description="`ingest` jobs read uploads, `predict` jobs classify stored images.")
    ] = JobKind.train,
    state: JobState | None = None,
    dataset_id: UUID | None = None,
) -> ListOut[JobOut]:
    page = jobs.list_jobs(
        session, reader.workspace_id, kind=kind, state=state, dataset_id=dataset_id, limit=limit, cursor=cursor
    )
    return ListOut(items=job_views(session, page.items, services.settings), next_cursor=page.next_cursor)


@router.get("/{job_id}", responses=problems(404, 422), summary="Look at a job")
async def get_job(job_id: UUID, reader: Reader, services: ServicesDep, wait: Wait = 0) -> JobOut:
    """With `wait`, the answer comes when the job has ended, or after that many seconds."""

    def look() -> JobOut:
        with services.database.reading() as session:
            return job_view(session, jobs.get(session, reader.workspace_id, job_id), services.settings)

    return await until(look, lambda job: job.state in TERMINAL, wait)


@router.post("/{job_id}:cancel", response_model=JobOut, responses=problems(404, 409, 422), summary="Cancel a job")
def cancel_job(job_id: UUID, writer: Writer, session: WriteSession) -> JobOut:
    """A waiting job ends at once. A running one is `cancelling` until its computation is gone, then `cancelled`."""
    return JobOut.model_validate(jobs.cancel(session, writer.workspace_id, job_id))


@router.get("/{job_id}/metrics", responses=problems(404, 422), summary="Metrics of each epoch")
def get_metrics(job_id: UUID, reader: Reader, session: ReadSession) -> ListOut[EpochOut]:
    """Every finished epoch, in order; a page is never cut."""
    jobs.get(session, reader.workspace_id, job_id)
    return ListOut(items=[EpochOut.model_validate(row.metrics) for row in jobs.metrics(session, job_id)])


@router.get(
    "/{job_id}/checkpoint",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        **problems(404, 422),
    },
    summary="Download a job's checkpoint",
)
def get_checkpoint(job_id: UUID, reader: Reader, services: ServicesDep) -> StreamingResponse:
    """The newest one, of a job that runs or that diverged: a file for `python -m app.vision train … --resume`."""
    with services.database.reading() as session:
        checkpoint = jobs.kept_checkpoint(session, reader.workspace_id, job_id)
    name = f"{job_id}-epoch-{checkpoint.epoch}-step-{checkpoint.step}.safetensors"
    return blob_response(services.store, checkpoint.sha256, checkpoint.size, "application/octet-stream", name)


def _known_job(job_id: UUID, reader: Reader, session: ReadSession) -> UUID:
    """A dependency, for a stream's own code runs when its 200 has been sent."""
    return jobs.get(session, reader.workspace_id, job_id).id


class EventStream(StreamingResponse):
    """Not FastAPI's own: its keep-alive raises where a client leaves while an event waits to be sent."""

    media_type = "text/event-stream"


@router.get(
    "/{job_id}/events",
    response_class=EventStream,
    responses=problems(404, 422),
    summary="Stream a job's events",
)
async def stream_events(
    job_id: Annotated[UUID, Depends(_known_job)],
    reader: Reader,
    services: ServicesDep,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**63 - 1)] = None,
) -> EventStream:
    """Server-sent events until the job has ended: `state` and `epoch` carry ids, and with `Last-Event-ID` the stream
    goes on after that one; `progress` is the present figure and carries none."""
    events = _events(services, reader.workspace_id, job_id, last_event_id or 0)
    return EventStream(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})


async def _events(services: Services, workspace_id: UUID, job_id: UUID, seq: int) -> AsyncIterator[bytes]:
    shown: dict[str, Any] = {}
    sent_at = time.monotonic()

    def look() -> tuple[list[JobEvent], JobOut]:
        with services.database.reading() as session:
            # The job first: an event written between the two looks is then not taken for the end.
            job = JobOut.model_validate(jobs.get(session, workspace_id, job_id))
            return list(events.after(session, job_id, seq)), job

    while True:
        try:
            new, job = await run_in_threadpool(look)
        except Unavailable:  # the stream outlives a moment without a database
            await anyio.sleep(_LOOK_AGAIN_AFTER)
            continue
        lines = [format_sse_event(event=one.type, id=str(one.seq), data_str=json.dumps(one.data)) for one in new]
        seq = new[-1].seq if new else seq
        if job.state in TERMINAL and not new:
            return
        progress = {"phase": job.phase, "progress": job.progress, "eta_seconds": job.eta_seconds}
        if job.state is JobState.running and progress != shown:
            shown = progress
            lines.append(format_sse_event(event="progress", data_str=json.dumps(progress)))
        if not lines and time.monotonic() - sent_at >= _SILENCE:
            lines.append(format_sse_event(comment="still here"))
        for line in lines:
            yield line
            sent_at = time.monotonic()
        if job.state not in TERMINAL:
            await anyio.sleep(_LOOK_EVERY)
