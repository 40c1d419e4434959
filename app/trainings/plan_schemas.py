"""Schemas of what the API says of a training before it is queued."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from app.datasets.schemas import Finding
from app.jobs.schemas import DocumentedAs, WaitingFor
from app.trainings.spec import TrainSpec


class PlannedNetwork(BaseModel):
    backbone: str
    input_size: int = Field(description="Pixels a side.")
    classes: list[str]
    parameters: int
    trainable_parameters: int
    trained: list[str] = Field(description="The parts that learn: the head, and stages of the trunk from it down.")


class PlannedImages(BaseModel):
    """Images of the frozen version that the training would read."""

    version_id: UUID
    version: int
    total: dict[str, int] = Field(description="By split.")
    counts: dict[str, dict[str, int]] = Field(description="By split and class.")


class Estimate(BaseModel):
    """An amount, or null where it cannot be known; `basis` says what it rests on, or why there is none."""

    value: int | float | None
    unit: str = Field(description="`bytes` or `seconds`.")
    parts: dict[str, int] = Field(default={}, description="What adds up to it.")
    basis: str


class PlannedLimits(BaseModel):
    """The workspace's use of its limits."""

    queued: int
    max_queued: int
    running: int
    max_running: int
    stored_bytes: int
    max_stored_bytes: int


class Refusal(BaseModel):
    """The reason why the job would be refused now."""

    code: str
    detail: str


class PlanOut(BaseModel):
    dataset_id: UUID
    spec: Annotated[dict[str, Any], DocumentedAs(TrainSpec)] = Field(
        description="What would be done, with every default filled in."
    )
    network: PlannedNetwork
    images: PlannedImages
    findings: list[Finding] = Field(
        description="What would spoil the result, the gravest first: errors and warnings of the dataset's report, and "
        "what speaks against this training of it."
    )
    memory: Estimate = Field(description="Of one process, at its most.")
    disk: Estimate = Field(description="On the worker and in the blob store.")
    seconds: Estimate = Field(description="From the start to the end; waiting is not in it.")
    limits: PlannedLimits
    refusal: Refusal | None = Field(description="Null: the job would be accepted.")
    waiting_for: WaitingFor
    jobs_ahead: int | None = Field(description="Trainings that would start before; null where it could not start.")
    wait_seconds: float | None = Field(description="As a job's.")
