"""Schemas of jobs that predict: what a caller may ask, the spec, the result."""

from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from app.core.plain_text import PLAIN
from app.jobs.scheduling import Scheduled
from app.jobs.schemas import Result, Spec, StoredFile
from app.predictions.schemas import Naming
from app.vision.data.folder_names import Split

MOST_IMAGES = 10_000  # that one request may name; a dataset's version has no such limit

# All but INT8, whose ranges come from training images that the job has nothing to do with.
BatchEngine = Literal[
    "torch", "torch-bf16", "torch-compile", "cuda-fp16", "cuda-bf16", "onnxruntime", "openvino", "openvino-bf16"
]
ImageName = Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]


class PredictJobRequest(Scheduled, Naming):
    """A model, and the stored images that it is to classify: a dataset's version, or images named one by one."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"model": "pets@production", "dataset": "pets"},
                {"model": "pets", "dataset": "pets", "version": 1, "split": "val", "label": "cat", "top_k": 3},
                {
                    "model": "pets",
                    "images": ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
                    "top_k": 1,
                },
            ]
        },
    )

    model: str = Field(
        min_length=1,
        max_length=200,
        pattern=PLAIN,
        description="Id, name or name@alias. The job uses the model that this means when the job is queued.",
    )
    images: list[ImageName] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_IMAGES,
        fail_fast=True,
        description="Images of any of the workspace's datasets, each by the SHA-256 of its bytes or by its id.",
    )
    dataset: str | None = Field(
        default=None, min_length=1, max_length=100, pattern=PLAIN, description="Id or name of a dataset that is ready."
    )
    version: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Number of the dataset's version; the newest if left out."
    )
    split: Split | None = Field(default=None, description="Classify only the version's images of this split.")
    label: str | None = Field(
        default=None, min_length=1, max_length=255, pattern=PLAIN, description="Classify only images with this label."
    )
    engine: BatchEngine = Field(
        default="torch",
        description="The engine that computes the answers; `torch` is the reference. `cuda-…` uses the worker's GPU; "
        "all others use its processor.",
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.images is None) == (self.dataset is None):
            raise ValueError("give either images or dataset")
        if self.images is not None and (self.version, self.split, self.label) != (None, None, None):
            raise ValueError("version, split and label select a dataset's images; give them only with dataset")
        return self


class PredictSpec(Spec):
    """The model and the images that the request came to, and what each answer is to hold."""

    model_id: UUID
    model_name: str
    backbone: str
    artefact_sha256: str = Field(description="The model's file.")
    thresholds: list[float | None] | None = Field(
        default=None, description="By class, what an accepted answer has to reach; null: the model has no target."
    )
    images: int = Field(description="How many are asked for.")
    images_sha256: str | None = Field(default=None, description="The list of them, where they were named one by one.")
    version: int | None = Field(default=None, description="Number of the dataset's version.")
    split: Split | None = None
    label: str | None = None
    top_k: int
    threshold: float
    classes: list[str]
    probabilities: Literal["top", "all"]
    engine: BatchEngine

    def naming(self) -> Naming:
        """Return which of the classes are named."""
        return Naming.model_validate(self.model_dump(include=set(Naming.model_fields)))


class PredictResult(Result):
    """`GET /v1/jobs/{id}/predictions` has the rows."""

    model_id: UUID
    file: StoredFile
    engine: str | None = Field(default=None, description="What computed.")
    images: int
    errors: int = Field(description="Images that could not be read.")
    predicted: dict[str, int] = Field(description="How often each class was the most probable.")
