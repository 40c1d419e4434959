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
    """The last good checkpoint of a run that diverged; `GET /v1/jobs/{id}/checkpoint` downloads it."""

    epoch: int = Field(description="The epoch, counted from 1.")
    step: int = Field(description="Number of steps of that epoch that were finished.")
    sha256: str
    size: int = Field(description="Bytes.")


class JobFailure(Failure):
    checkpoint: KeptCheckpoint | None = Field(
        default=None, description="The last good checkpoint of a run that diverged."
    )


class JobOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    kind: str
    state: JobState
    dataset_id: UUID | None = Field(
        description="The dataset; null for a predict job whose images are named one by one."
    )
    dataset_version_id: UUID | None
    spec: dict[str, Any] = Field(description="The job's task, with every default filled in.")
    phase: str | None = Field(description="The job's phase: starting, packing, features, training, predicting, …")
    progress: float = Field(description="Progress from 0 to 1, which never decreases within an attempt.")
    eta_seconds: float | None
    attempt: int
    max_attempts: int
    priority: int
    run_after: datetime | None
    max_seconds: float | None
    waiting_for: WaitingFor | None = Field(
        default=None,
        description="The reason why a queued job waits: `slot` (other jobs run), `worker` (no worker is alive), "
        "`storage` (the workers' disks are full, see GET /v1/workers), `run_after` (its earliest start has not come), "
        "`workspace_limit` (its workspace runs as many jobs as it may), or `machines` (fewer workers are there than "
        "the job needs; this can also be set while a job runs).",
    )
    queue_position: int | None = Field(default=None, description="Position in the queue; 1 is the next job to run.")
    wait_seconds: float | None = Field(
        default=None,
        description="Estimated seconds until the job starts, from running jobs, jobs ahead and the time of comparable "
        "jobs; null if one of these is unknown.",
    )
    worker: str | None
    result: dict[str, Any] | None = Field(description="Set exactly when the job succeeded.")
    setback: Failure | None = Field(
        description="Why an earlier attempt broke off; the job went on by itself.",
    )
    failure: JobFailure | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None = Field(description="The time of the job's end; set exactly if the state is final.")


class DeviceOut(BaseModel):
    """A device that trainings compute on: a GPU, or the processor with the machine's memory."""

    name: str
    memory_total: int | None = Field(description="All memory in bytes.")
    memory_free: int | None = Field(description="Free memory in bytes at the last heartbeat.")


class WorkerOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str = Field(description="Host and process id, as in a job's `worker`.")
    host: str
    version: str
    state: Literal["alive", "lost"] = Field(description="`lost` means no heartbeat for the length of a lease.")
    devices: list[DeviceOut]
    train_slots: int = Field(
        description="Number of trainings that the worker runs at once, besides one ingest job and one predict job."
    )
    running: int = Field(description="Number of jobs of all workspaces that the worker runs now.")
    jobs: list[UUID] = Field(description="This workspace's jobs that the worker runs now.")
    problem: Failure | None = Field(description="The reason why the worker takes no job at present.")
    started_at: datetime
    heartbeat_at: datetime
