"""What a caller may ask of a job that predicts."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.jobs.scheduling import Scheduled
from app.predictions.schemas import Naming
from app.trainings.schemas import PLAIN
from app.vision.data.folder_names import Split

MOST_IMAGES = 10_000  # that one request may name; a dataset's version has no such limit

# All but INT8, whose ranges come from training images that the job has nothing to do with.
BatchEngine = Literal[
    "torch", "torch-bf16", "torch-compile", "cuda-fp16", "cuda-bf16", "onnxruntime", "openvino", "openvino-bf16"
]
ImageName = Annotated[str, Field(min_length=1, max_length=64, pattern=PLAIN)]


class PredictJobRequest(Scheduled, Naming):
    """A model, and stored images for it to classify: a dataset's frozen version, or images by their names."""

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
        description="Id, name, or name@alias; it is the model that this means when the job is queued.",
    )
    images: list[ImageName] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_IMAGES,
        fail_fast=True,
        description="Images of any of the workspace's datasets: the SHA-256 of their bytes, or ids.",
    )
    dataset: str | None = Field(
        default=None, min_length=1, max_length=100, pattern=PLAIN, description="Id or name of a dataset that is ready."
    )
    version: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="Number of the dataset's version; the newest if left out."
    )
    split: Split | None = Field(default=None, description="The version's images of this split alone.")
    label: str | None = Field(
        default=None, min_length=1, max_length=255, pattern=PLAIN, description="Those with this label alone."
    )
    engine: BatchEngine = Field(
        default="torch",
        description="What computes; `torch` is the reference. All but `cuda-…` use the worker's processor, and leave "
        "its GPU to trainings.",
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.images is None) == (self.dataset is None):
            raise ValueError("give either images or dataset")
        if self.images is not None and (self.version, self.split, self.label) != (None, None, None):
            raise ValueError("version, split and label choose among a dataset's images; give them with dataset")
        return self
