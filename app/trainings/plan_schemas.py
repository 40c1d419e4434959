"""Schemas of what the API says of a training before it is queued."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field

from app.datasets.schemas import Finding
from app.jobs.schemas import DocumentedAs, WaitingFor
from app.trainings.spec import TrainSpec


class PlannedNetwork(BaseModel):
    backbone: str
    input_size: int = Field(description="Side of the square input in pixels.")
    classes: list[str]
    parameters: int
    trainable_parameters: int
    trained: list[str] = Field(description="The parts that learn: the head, and the trunk's stages next to it.")


class PlannedImages(BaseModel):
    """The images of the version that the training would read."""

    version_id: UUID
    version: int
    total: dict[str, int] = Field(description="Number of images in each split.")
    counts: dict[str, dict[str, int]] = Field(description="Number of images in each split and class.")


class Estimate(BaseModel):
    """An estimate, or null if there is none; `basis` says how it was made, or why there is none."""

    value: int | float | None
    unit: str = Field(description="`bytes` or `seconds`.")
    parts: dict[str, int] = Field(default={}, description="The parts that add up to the value.")
    basis: str


class PlannedLimits(BaseModel):
    """The workspace's limits, and how much of each is in use."""

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
        description="Faults that would spoil the result, the gravest first: errors and warnings of the dataset's "
        "report, and faults that only this training would meet."
    )
    memory: Estimate = Field(description="Peak memory of one process.")
    disk: Estimate = Field(description="Space on the worker's disk and in the blob store.")
    seconds: Estimate = Field(description="Time from start to end, without waiting.")
    limits: PlannedLimits
    refusal: Refusal | None = Field(description="The reason for a refusal; null if the job would be accepted.")
    waiting_for: WaitingFor
    jobs_ahead: int | None = Field(description="Trainings that would start before it; null if it could not start.")
    wait_seconds: float | None = Field(description="Estimated seconds until it would start, as for a queued job.")
