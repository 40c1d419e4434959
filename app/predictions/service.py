"""Classify images: decode, prepare as the trainer did, ask the batcher, name the classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from app.core.errors import FieldError, Invalid
from app.datasets.intake import IntakeLimits, RejectedImage, read_image
from app.predictions.cache import ModelCache
from app.predictions.schemas import ClassProbability, Prediction, PredictionError, PredictOut

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image as it came: its bytes, and the name it was sent under, if any."""

    data: bytes
    name: str | None


@dataclass(frozen=True, slots=True)
class ModelReference:
    """What of a model's row is needed to answer: its id and where its bytes are."""

    model_id: UUID
    artefact_sha256: str


def predict(
    cache: ModelCache, model: ModelReference, images: Sequence[SentImage], *, top_k: int, limits: IntakeLimits
) -> PredictOut:
    """Classify each image by itself: an unreadable one among several spoils no other.

    A single unreadable image raises `Invalid`, with the image's own reason.
    """
    batcher = cache.get(model.artefact_sha256)
    prepared: list[NDArray[np.uint8]] = []
    answers: list[Prediction | None] = []
    for image in images:
        try:
            prepared.append(read_image(image.data, limits, batcher.classifier.prepare))
            answers.append(None)
        except RejectedImage as rejected:
            if len(images) == 1:
                where = FieldError(image.name or "body", f"{rejected.reason} {rejected.remedy}", rejected.code)
                raise Invalid(f"{rejected.reason} {rejected.remedy}", code=rejected.code, errors=[where]) from None
            error = PredictionError(code=rejected.code, detail=f"{rejected.reason} {rejected.remedy}")
            answers.append(Prediction(file=image.name, status="error", error=error))

    futures = iter(batcher.submit(prepared))
    return PredictOut(
        model_id=model.model_id,
        items=[
            answer or _named(next(futures).result(), batcher.classifier.classes, image.name, top_k)
            for image, answer in zip(images, answers, strict=True)
        ],
    )


def _named(row: "NDArray[np.float32]", classes: Sequence[str], name: str | None, top_k: int) -> Prediction:
    order = row.argsort()[::-1][:top_k]
    named = [ClassProbability(label=classes[index], probability=float(row[index])) for index in order]
    return Prediction(file=name, status="ok", predictions=named)
