"""Put together what a resource says from the domains that know parts of it."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.api.job_out import JobOut
from app.api.problems import MEDIA_TYPE, Problem
from app.core.settings import Settings
from app.datasets import service as datasets
from app.datasets.orm import Dataset
from app.datasets.schemas import DatasetOut, VersionOut
from app.datasets.states import DatasetState
from app.ingestions import service as ingestions
from app.jobs import sharing
from app.jobs.orm import Job
from app.jobs.states import JobState
from app.jobs.types import KNOWN
from app.jobs.waiting import queue_places
from app.predictions.schemas import EnginesOut, Serving
from app.predictions.serving.tuning import engines_of
from app.registry import service as registry
from app.registry.orm import Model
from app.registry.schemas import ModelOut

T = TypeVar("T")


class ListOut(BaseModel, Generic[T]):
    """One page of a list, newest first."""

    items: list[T]
    next_cursor: str | None = None


def dataset_views(session: Session, rows: Sequence[Dataset]) -> list[DatasetOut]:
    """Datasets with their newest version and how far reading them has come."""
    ids = [row.id for row in rows]
    versions = datasets.latest_versions(session, ids)
    filled_by = ingestions.newest_of(session, ids)
    views = []
    for row in rows:
        version, job = versions.get(row.id), filled_by.get(row.id)
        views.append(
            DatasetOut.model_validate(
                {
                    "id": row.id,
                    "name": row.name,
                    "state": row.state,
                    "progress": 1.0 if row.state is DatasetState.ready else (job.progress if job else 0.0),
                    "job_id": job.id if job else None,
                    "version": VersionOut.model_validate(version) if version else None,
                    "report": row.report,
                    "failure": row.failure,
                    "upload": row.upload,
                    "created_at": row.created_at,
                }
            )
        )
    return views


class ServedModel(ModelOut):
    """A model, the aliases that mean it, and how it stands with it in the process that answers."""

    aliases: list[str]
    serving: Serving
    engines: list[EnginesOut] = Field(description="What was measured, the newest first; empty until it was.")


def served_model(session: Session, model: Model, serving: Serving) -> ServedModel:
    aliases = registry.aliases(session, model.workspace_id, model.name)
    known = ModelOut.model_validate(model).model_dump()
    return ServedModel(
        **known,
        aliases=[one.alias for one in aliases if one.model_id == model.id],
        serving=serving,
        engines=[EnginesOut.model_validate(one) for one in engines_of(session, model.id)],
    )


def job_views(session: Session, rows: Sequence[Job], settings: Settings) -> list[JobOut]:
    """Jobs, with what they wait for."""
    queued = {row.kind for row in rows if row.state is JobState.queued}
    slots = {kind.slot for kind in KNOWN if kind.name in queued}
    found = [queue_places(session, slot, settings.max_running_jobs) for slot in slots]
    known = {job_id: place for one in found for job_id, place in one.items()}
    shared = [row.id for row in rows if row.state is JobState.running and sharing.machines_of(row) > 1]
    gathering = sharing.lacking(session, shared) if shared else set()
    views = []
    for row in rows:
        view = JobOut.model_validate(row)
        if row.state is JobState.queued and KNOWN.find(row.kind) is None:
            view.waiting_for = "worker"  # of newer code
        elif row.state is JobState.queued and (stands := known.get(row.id)):
            view.waiting_for = stands.waiting_for
            view.queue_position, view.wait_seconds = stands.place, stands.seconds
        elif row.id in gathering:
            view.waiting_for = "machines"
        views.append(view)
    return views


def job_view(session: Session, row: Job, settings: Settings) -> JobOut:
    (view,) = job_views(session, [row], settings)
    return view


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the errors a route answers, beside those that every route may answer."""
    return {status: {"model": Problem, "content": {MEDIA_TYPE: {}}} for status in (401, 403, *statuses)}
