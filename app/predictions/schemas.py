"""Define the options of a predict call and its response."""

from base64 import b64decode
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.vision.engines.names import EngineName

_NAME = r"^[^\x00-\x1f\x7f]+$"


class Serving(BaseModel):
    """The state of a model in the process that responds; other processes have their own."""

    state: Literal["unloaded", "loading", "ready", "unhealthy"]
    detail: str | None = Field(default=None, description="The reason why the model is unhealthy.")
    since: datetime | None = Field(default=None, description="The time when the model became unhealthy.")
    bytes: int | None = Field(default=None, description="Memory that the model's weights occupy, in bytes.")
    engine: str | None = Field(default=None, description="The engine that computes the answers now.")


class EngineMeasured(BaseModel):
    """An engine compared with the reference, `torch`, on held-out images of the model's dataset."""

    engine: str
    usable: bool = Field(description="Whether the engine agrees with the reference, so that it may be chosen.")
    images: int
    agreement: float | None = Field(description="Share of the images to which it gives the reference's label.")
    accuracy_drop: float | None = Field(description="Accuracy of the reference on these images minus the engine's.")
    single_ms: float | None = Field(description="Milliseconds for one image.")
    large_ms: float | None = Field(description="Milliseconds for 32 images in batches of `batch`.")
    batch: int | None = Field(default=None, description="Number of images in its fastest batch.")
    unknown_shift: float | None = Field(
        default=None, description="Share of the images that the engine calls `unknown` minus the reference's share."
    )
    detail: str | None = Field(description="The reason why the engine is not usable.")


class EnginesOut(BaseModel):
    """The measurements of a model's engines on one kind of machine."""

    model_config = ConfigDict(from_attributes=True)

    machine: str
    chosen: str
    measured: list[EngineMeasured]
    measured_at: datetime


class Naming(BaseModel):
    """The choice of classes in an answer. Probabilities are never rescaled: those of all classes add up to 1."""

    model_config = ConfigDict(extra="forbid")

    top_k: int = Field(default=5, ge=1, le=1000, description="Number of classes in the answer, most probable first.")
    threshold: float = Field(default=0.0, ge=0, le=1, description="Leave out classes that are less probable than this.")
    classes: list[str] = Field(
        default=[], max_length=1000, fail_fast=True, description="Only these classes appear; empty: all."
    )
    probabilities: Literal["top", "all"] = Field(
        default="top", description="`all` adds the probability of every class, by its label."
    )


class PredictOptions(Naming):
    """The options of a predict call."""

    engine: EngineName | None = Field(
        default=None, description="The engine that is to answer, whether it agrees with the reference or not."
    )
    timeout: float | None = Field(
        default=None,
        ge=0.01,
        le=600,
        description="Seconds after which the call gets a 503; GRAFT_PREDICT_SECONDS if left out.",
    )


def _decode(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"this is a {type(text).__name__} and no text; encode the file with base64 -w0")
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"this is not base64 ({error}); encode the file with base64 -w0") from None


class JsonImage(BaseModel):
    """An image in the body as `base64`, or the `id` of an image in one of the workspace's datasets."""

    model_config = ConfigDict(extra="forbid")

    base64: Annotated[bytes, BeforeValidator(_decode, json_schema_input_type=str)] | None = Field(
        default=None, description="The file's bytes in base64 (RFC 4648)."
    )
    id: str | None = Field(
        default=None, max_length=64, pattern=_NAME, description="Id of a stored image, or the SHA-256 of its bytes."
    )
    name: str | None = Field(
        default=None, max_length=255, pattern=_NAME, description="A name for the image, which the response repeats."
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.base64 is None) == (self.id is None):
            raise ValueError("give either base64 or id")
        return self


class PredictRequest(PredictOptions):
    """A predict call in JSON, with images in base64 or named by their ids."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "images": [
                        {
                            "base64": "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFElEQVR4nGM8"
                            "oaHBgA0wYRUdtBIA4DgBKJ8lCQoAAAAASUVORK5CYII=",
                            "name": "dot.png",
                        }
                    ],
                    "top_k": 2,
                    "probabilities": "all",
                }
            ]
        }
    )

    images: list[JsonImage] = Field(min_length=1, max_length=10_000, fail_fast=True)


class ClassProbability(BaseModel):
    label: str
    probability: float = Field(ge=0, le=1)


class PredictionError(BaseModel):
    code: str
    detail: str


class Prediction(BaseModel):
    """One image's answer: `predictions` (most probable first) or `error`."""

    file: str | None = Field(description="The name that was sent with the image, or the stored image's id.")
    status: Literal["ok", "error"]
    decision: Literal["accept", "abstain", "unknown"] | None = Field(
        default=None,
        description="`accept`: the probability of the most probable class reaches its threshold. `abstain`: it does "
        "not. `unknown`: the image is unlike the training images. null: the model has no target precision.",
    )
    ood_score: float | None = Field(
        default=None,
        description="How unlike the training images the image is; above 1 it is `unknown`. null: too few images "
        "validated the model.",
    )
    predictions: list[ClassProbability] = []
    probabilities: dict[str, float] | None = Field(
        default=None, description="Probability of every class, with `probabilities=all`, in the order of the outputs."
    )
    error: PredictionError | None = None


class PredictOut(BaseModel):
    model_id: UUID
    engine: str = Field(description="The engine that computed the answers; `torch` is the reference.")
    items: list[Prediction] = Field(description="An answer for each image, in the order of the images sent.")
