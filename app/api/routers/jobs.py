"""Jobs of every kind: watch, cancel; and trainings: submit, plan."""

import json
from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import AfterValidator
from sqlalchemy.orm import Session

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
from app.api.job_out import JobOut, KnownKind, MetricsOut
from app.api.routes import Route
from app.api.streaming import EventStream, Look, stream
from app.api.submission import submit_once
from app.api.views import ListOut, job_view, job_views, problems
from app.api.waiting import until
from app.jobs import events
from app.jobs import service as jobs
from app.jobs.orm import Job
from app.jobs.states import TERMINAL, JobState
from app.trainings import service as trainings
from app.trainings.plan import plan
from app.trainings.plan_schemas import PlanOut
from app.trainings.schemas import TrainRequest
from app.trainings.service import StartingModel
from app.trainings.type import TRAIN
from app.vision.settings.config import TrainConfig

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=Route)


@router.post(
    "", status_code=202, response_model=JobOut, responses=problems(400, 409, 422, 429), summary="Train a model"
)
def create_job(body: TrainRequest, writer: Writer, services: ServicesDep, key: IdempotencyKey = None) -> Any:
    """Queue a training; only `dataset` is required. `GET /v1/jobs/{id}?wait=60` waits for its end, and `/events`
    streams its progress. The finished job's `result.model_id` is the model."""
    start, config = _resolved(body, services, writer.workspace_id)

    def submit(session: Session) -> Job:
        limits = services.settings.max_attempts, services.settings.max_queued_jobs
        return trainings.submit(session, services.doorbell, writer.workspace_id, body, config, *limits, start)

    return submit_once(services, writer.workspace_id, key, "POST /v1/jobs", body, submit)


def _resolved(body: TrainRequest, services: Services, workspace_id: UUID) -> tuple[StartingModel | None, TrainConfig]:
    with services.database.reading() as session:
        start = trainings.starting_model(session, workspace_id, body)
    return start, trainings.resolve(body, services.weights, start)


@router.post(":plan", responses=problems(400, 409, 422), summary="Plan a training without queueing it")
def plan_job(body: TrainRequest, reader: Reader, services: ServicesDep) -> PlanOut:
    """Take the body of `POST /v1/jobs` and return what would be trained on which images, the faults in the data, the
    cost in memory, disk and time, and whether and when the job would start. Nothing is queued or written."""
    start, config = _resolved(body, services, reader.workspace_id)
    with services.database.reading() as session:
        return plan(session, services.store, reader.workspace_id, body, config, services.settings, start)


@router.get("", responses=problems(422), summary="List jobs")
def list_jobs(
    reader: Reader,
    session: ReadSession,
    services: ServicesDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    kind: Annotated[
        Annotated[str, AfterValidator(KnownKind.check), KnownKind()] | None,
        Query(description="`ingest` jobs read uploads, `predict` jobs classify stored images."),
    ] = TRAIN.name,
    state: JobState | None = None,
    dataset_id: UUID | None = None,
) -> ListOut[JobOut]:
    page = jobs.list_jobs(
        session, reader.workspace_id, kind=kind, state=state, dataset_id=dataset_id, limit=limit, cursor=cursor
    )
    return ListOut(items=job_views(session, page.items, services.settings), next_cursor=page.next_cursor)


@router.get("/{job_id}", responses=problems(404, 422), summary="Get a job")
async def get_job(job_id: UUID, reader: Reader, services: ServicesDep, wait: Wait = 0) -> JobOut:
    """Get a job. With `wait`, the response comes when the job has ended, or after that many seconds."""

    def look() -> JobOut:
        with services.database.reading() as session:
            return job_view(session, jobs.get(session, reader.workspace_id, job_id), services.settings)

    return await until(look, lambda job: job.state in TERMINAL, wait, services.draining)


@router.post("/{job_id}:cancel", response_model=JobOut, responses=problems(404, 409, 422), summary="Cancel a job")
def cancel_job(job_id: UUID, writer: Writer, session: WriteSession) -> JobOut:
    """Cancel a job. A queued job ends at once; a running one is `cancelling` until its computation has ended, and then
    `cancelled`."""
    return JobOut.model_validate(jobs.cancel(session, writer.workspace_id, job_id))


@router.get("/{job_id}/metrics", responses=problems(404, 422), summary="List the metrics of each epoch")
def get_metrics(job_id: UUID, reader: Reader, session: ReadSession) -> ListOut[MetricsOut]:
    """List every finished epoch, in order, on one page."""
    jobs.get(session, reader.workspace_id, job_id)
    return ListOut(items=[MetricsOut.model_validate(row.metrics) for row in jobs.metrics(session, job_id)])


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
    """Download the newest checkpoint of a job that runs or diverged, for `python -m app.vision train … --resume`."""
    with services.database.reading() as session:
        checkpoint = jobs.kept_checkpoint(session, reader.workspace_id, job_id)
    name = f"{job_id}-epoch-{checkpoint.epoch}-step-{checkpoint.step}.safetensors"
    return blob_response(services.store, checkpoint.sha256, checkpoint.size, "application/octet-stream", name)


def _known_job(job_id: UUID, reader: Reader, session: ReadSession) -> UUID:
    """Return the id of a job of this workspace. This is a dependency, because a stream's code runs after its 200."""
    return jobs.get(session, reader.workspace_id, job_id).id


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
    """Stream server-sent events until the job has ended. `state` and `epoch` events have ids, and with `Last-Event-ID`
    the stream continues after that event. A `progress` event tells the present progress and has no id."""
    look = _look(services, reader.workspace_id, job_id, last_event_id or 0)
    return stream(look, services.settings.stream_silence_seconds, services.draining)


def _look(services: Services, workspace_id: UUID, job_id: UUID, seq: int) -> Callable[[], Look]:
    """Return what finds the events after `seq`, each once, and the job's progress whenever it is another."""
    shown: dict[str, Any] = {}

    def look() -> Look:
        nonlocal seq, shown
        with services.database.reading() as session:
            # The job first: an event written between the two looks is then not taken for the end.
            job = JobOut.model_validate(jobs.get(session, workspace_id, job_id))
            new = events.after(session, job_id, seq)
        ended = job.state in TERMINAL
        lines = [format_sse_event(event=one.type, id=str(one.seq), data_str=json.dumps(one.data)) for one in new]
        seq = new[-1].seq if new else seq
        progress = {"phase": job.phase, "progress": job.progress, "eta_seconds": job.eta_seconds}
        if job.state is JobState.running and progress != shown:
            shown = progress
            lines.append(format_sse_event(event="progress", data_str=json.dumps(progress)))
        return Look(lines, more=ended, over=ended and not new)

    return look
