"""What a predict call answers."""

from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field


class ClassProbability(BaseModel):
    label: str
    probability: float = Field(ge=0, le=1)


class PredictionError(BaseModel):
    code: str
    detail: str


class Prediction(BaseModel):
    """One image's answer: `predictions` (most probable first) or `error`."""

    file: str | None = Field(description="The name that was sent with the image.")
    status: Literal["ok", "error"]
    predictions: list[ClassProbability] = []
    error: PredictionError | None = None


class PredictOut(BaseModel):
    model_id: UUID
    items: list[Prediction] = Field(description="In the order of the images sent.")
