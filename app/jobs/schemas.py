"""Schemas of every kind of job: spec, result, metrics of an epoch; and what the API says of jobs and workers."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.datasets.schemas import Failure
from app.jobs.states import JobState

WaitingFor = Literal["worker", "storage", "slot", "run_after", "workspace_limit", "machines"]


class Spec(BaseModel):
    """The work of a job, with every default filled in. Rows of newer code may have further fields; they are kept."""

    model_config = ConfigDict(extra="allow")


class DocumentedAs:
    """Documents a field that holds what a row holds, whichever code wrote it, by the model that describes it."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._model = model

    def __get_pydantic_json_schema__(self, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(TypeAdapter(self._model).core_schema)


class Result(BaseModel):
    """The part of what a job made that its row keeps."""

    model_config = ConfigDict(extra="allow")


class Metrics(BaseModel):
    """A job's report of one epoch."""

    model_config = ConfigDict(extra="allow")

    epoch: int


class StoredFile(BaseModel):
    """A file in the blob store."""

    sha256: str
    size: int = Field(description="Bytes.")


class KeptCheckpoint(BaseModel):
    """The last good place of a run that diverged: `GET /v1/jobs/{id}/checkpoint` gives the file."""

    epoch: int = Field(description="From 1.")
    step: int = Field(description="Steps of that epoch that were done.")
    sha256: str
    size: int = Field(description="Bytes.")


class JobFailure(Failure):
    checkpoint: KeptCheckpoint | None = Field(default=None, description="Of a job that diverged, if one was written.")


class JobOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    kind: str
    state: JobState
    dataset_id: UUID | None = Field(description="Null of predictions for images that were named one by one.")
    dataset_version_id: UUID | None
    spec: dict[str, Any] = Field(description="What is done, with every default filled in.")
    phase: str | None = Field(description="What the worker is at: starting, packing, features, training, predicting, …")
    progress: float = Field(description="0 to 1; within an attempt it never goes back.")
    eta_seconds: float | None
    attempt: int
    max_attempts: int
    priority: int
    run_after: datetime | None
    max_seconds: float | None
    waiting_for: WaitingFor | None = Field(
        default=None,
        description="Of a queued job: `slot` (others run), `worker` (none is alive), `storage` (workers have no room, "
        "see GET /v1/workers), `run_after` (its time is to come), `workspace_limit` (its workspace runs all it may), "
        "`machines` (fewer workers are there than are to share it; also of a running one whose leader waits for them).",
    )
    queue_position: int | None = Field(default=None, description="1: the next one to run.")
    wait_seconds: float | None = Field(
        default=None,
        description="An estimate until it starts, from what runs, what is ahead and how long comparable jobs took; "
        "null where one of them is unknown.",
    )
    worker: str | None
    result: dict[str, Any] | None = Field(description="Set exactly when the job succeeded.")
    setback: Failure | None = Field(
        description="Why an earlier attempt broke off; the job went on by itself.",
    )
    failure: JobFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None = Field(description="Set exactly when the state is terminal.")


class DeviceOut(BaseModel):
    """A GPU that trainings compute on, or the processor with the machine's memory."""

    name: str
    memory_total: int | None = Field(description="Bytes.")
    memory_free: int | None = Field(description="Bytes, at the last heartbeat.")


class WorkerOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str = Field(description="Host and process id; a job's `worker` names it.")
    host: str
    version: str
    state: Literal["alive", "lost"] = Field(description="`lost`: no heartbeat for as long as a lease.")
    devices: list[DeviceOut]
    train_slots: int = Field(
        description="Trainings it runs at once. Every worker reads one upload and runs one job that predicts beside "
        "them."
    )
    running: int = Field(description="Jobs it runs now, of all workspaces.")
    jobs: list[UUID] = Field(description="Those of them that are this workspace's.")
    problem: Failure | None = Field(description="Why it takes no job at present.")
    started_at: datetime
    heartbeat_at: datetime
