"""What a predict call may ask beside its images, and what it answers."""

from base64 import b64decode
from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.vision.engines.names import EngineName

_NAME = r"^[^\x00-\x1f\x7f]+$"


class Serving(BaseModel):
    """How it stands with a model in the process that answers; another process may hold it or not."""

    state: Literal["unloaded", "loading", "ready", "unhealthy"]
    detail: str | None = Field(default=None, description="Why it is unhealthy.")
    since: datetime | None = Field(default=None, description="When it became unhealthy.")
    bytes: int | None = Field(default=None, description="Memory that its weights occupy.")
    engine: str | None = Field(default=None, description="What computes its answers now.")


class EngineMeasured(BaseModel):
    """An engine beside the reference, `torch`, on held-out images of the model's dataset."""

    engine: str
    usable: bool = Field(description="Whether it may be chosen: it agrees with the reference.")
    images: int
    agreement: float | None = Field(description="Share of the images that it labels as the reference does.")
    accuracy_drop: float | None = Field(description="The reference's accuracy on them minus its own.")
    single_ms: float | None = Field(description="Milliseconds for one image.")
    large_ms: float | None = Field(description="Milliseconds for 32 images, given to it `batch` at a time.")
    batch: int | None = Field(default=None, description="Images at a time with which it was the fastest.")
    unknown_shift: float | None = Field(
        default=None, description="The share of them that is `unknown` to it minus the reference's."
    )
    detail: str | None = Field(description="Why it is not usable.")


class EnginesOut(BaseModel):
    """What was found out about a model's engines on one kind of machine."""

    model_config = ConfigDict(from_attributes=True)

    machine: str
    chosen: str
    measured: list[EngineMeasured]
    measured_at: datetime


class Naming(BaseModel):
    """Which of the classes are named. Probabilities are never rescaled: those of all classes add up to 1."""

    model_config = ConfigDict(extra="forbid")

    top_k: int = Field(default=5, ge=1, le=1000, description="How many classes to name, most probable first.")
    threshold: float = Field(default=0.0, ge=0, le=1, description="Name no class that is less probable than this.")
    classes: list[str] = Field(
        default=[], max_length=1000, fail_fast=True, description="Name none but these; empty: all of them."
    )
    probabilities: Literal["top", "all"] = Field(
        default="top", description="`all` adds the probability of every class, by its label."
    )


class PredictOptions(Naming):
    """What a predict call may ask beside its images."""

    engine: EngineName | None = Field(
        default=None, description="Insist on this one, whether it agrees with the reference or not."
    )
    timeout: float | None = Field(
        default=None, ge=0.01, le=600, description="Seconds after which the call is answered with a 503; "
        "GRAFT_PREDICT_SECONDS if left out."
    )  # fmt: skip


def _decode(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise ValueError(f"this is no base64 ({error}); send the file's bytes through base64 -w0") from None


class JsonImage(BaseModel):
    """An image in the body itself, in `base64`, or an image of one of the workspace's datasets, by its `id`."""

    model_config = ConfigDict(extra="forbid")

    base64: Annotated[bytes, BeforeValidator(_decode, json_schema_input_type=str)] | None = Field(
        default=None, description="The file's bytes in base64 (RFC 4648)."
    )
    id: str | None = Field(
        default=None, max_length=64, pattern=_NAME, description="Of a stored image, or the SHA-256 of its bytes."
    )
    name: str | None = Field(default=None, max_length=255, pattern=_NAME, description="Comes back in the answer.")

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.base64 is None) == (self.id is None):
            raise ValueError("give either base64 or id")
        return self


class PredictRequest(PredictOptions):
    """Images as JSON: in base64, or named by their ids."""

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
        description="`accept`: the most probable class reaches its threshold, `abstain`: it does not; null where the "
        "model has no target of precision. `unknown`: the image is unlike those that the model was trained on.",
    )
    ood_score: float | None = Field(
        default=None, description="How unlike: past 1 it is `unknown`. null where too few images validated the model."
    )
    predictions: list[ClassProbability] = []
    probabilities: dict[str, float] | None = Field(
        default=None, description="Of every class, in the order of the model's outputs; with `probabilities=all`."
    )
    error: PredictionError | None = None


class PredictOut(BaseModel):
    model_id: UUID
    engine: str = Field(description="What computed the answers; `torch` is the reference.")
    items: list[Prediction] = Field(description="In the order of the images sent.")
