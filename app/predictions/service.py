"""Answer images: decode, prepare as the trainer did, ask the batcher, describe the answers."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from app.core.errors import FieldError, GraftError, Invalid, Unavailable
from app.datasets.intake.intake import IntakeLimits, RejectedFile, read_image
from app.predictions.inference.protocol import Prepare
from app.predictions.references import ModelReference
from app.predictions.schemas import Naming, Prediction, PredictionError, PredictOptions, PredictOut
from app.predictions.serving.batcher import Batcher
from app.predictions.serving.decoding import Decoder
from app.predictions.serving.model_cache import ModelCache
from app.predictions.serving.timing import Times
from app.vision.engines.names import EngineName, obstacle

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from app.vision.engines.model import TrainedModel


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image to classify: what gives its bytes (in a decoding thread), and the name that it goes by, if any."""

    read: Callable[[], bytes]
    name: str | None


@dataclass(frozen=True, slots=True)
class Predictor:
    """Classifies images: it holds the models, the threads that decode, and the limits on an image."""

    models: ModelCache
    decoder: Decoder
    limits: IntakeLimits

    async def predict(
        self,
        model: ModelReference,
        images: Sequence[SentImage],
        options: PredictOptions,
        *,
        timeout: float,
        times: list[Times],
    ) -> PredictOut:
        """Classify each image by itself: an unreadable one among several spoils no other.

        A single unreadable image raises `Invalid` with the image's own reason. Raises `Unavailable` where the model
        is unhealthy or too much waits for it, and after `timeout` seconds (`deadline_exceeded`); what still waits
        then is not computed. `times` is filled for each image.
        """
        if options.engine is not None:
            await asyncio.to_thread(_check_engine, options.engine)  # may have to import torch
            model = replace(model, engine=options.engine)
        prepares = [partial(self._read, image) for image in images]
        loaded, outcomes = await self.answers(
            model,
            prepares,
            timeout=timeout,
            times=times,
            check=lambda one: check_classes(options.classes, one.classes),
        )
        return PredictOut(
            model_id=model.model_id,
            engine=loaded.engine.name,
            items=[
                _item(outcome, loaded, model.thresholds, image, options, alone=len(images) == 1)
                for image, outcome in zip(images, outcomes, strict=True)
            ],
        )

    async def answers(
        self,
        model: ModelReference,
        prepares: Sequence[Prepare],
        *,
        timeout: float,
        times: list[Times],
        check: "Callable[[TrainedModel], None]" = lambda _: None,
    ) -> "tuple[TrainedModel, list[Any]]":
        """Return the loaded model, and for each image its answer or the error that it met; see `predict`.

        `check` may refuse a call once the model is known.
        """
        try:
            async with asyncio.timeout(timeout):
                arrived = [Times() for _ in prepares]
                times.extend(arrived)
                with self.models.lease(model) as loading:
                    batcher = await asyncio.wrap_future(loading)
                    check(batcher.model)
                    return batcher.model, await self._ask(batcher, prepares, arrived, timeout)
        except TimeoutError:
            raise Unavailable(
                f"There was no answer within {timeout:g} s; send fewer images, a longer timeout, or try again.",
                code="deadline_exceeded",
                retry_after=1,
            ) from None

    def close(self) -> None:
        self.decoder.close()
        self.models.close()

    async def _ask(
        self, batcher: Batcher, prepares: Sequence[Prepare], times: Sequence[Times], timeout: float
    ) -> list[Any]:
        futures = batcher.admit(len(prepares), timeout)
        for prepare, future, one in zip(prepares, futures, times, strict=True):
            self.decoder.put(partial(prepare, batcher.model), batcher, future, one)
        # Cancelled at the deadline, this cancels every future that nobody works on yet.
        return await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)

    def _read(self, image: SentImage, model: "TrainedModel") -> "NDArray[np.uint8]":
        return read_image(image.read(), self.limits, model.prepare)


def _check_engine(name: EngineName) -> None:
    if detail := obstacle(name):
        raise Invalid(detail, code="engine_unavailable", errors=[FieldError("engine", detail, "engine_unavailable")])


def check_classes(asked: Sequence[str], known: Sequence[str]) -> None:
    """Raise `Invalid` for a class that the model has not."""
    if unknown := [label for label in asked if label not in known]:
        shown = ", ".join(map(repr, known[:20])) + (", …" if len(known) > 20 else "")
        detail = f"The model has no class {unknown[0]!r}. It has {shown}."
        raise Invalid(detail, code="unknown_class", errors=[FieldError("classes", detail, "unknown_class")])


def image_error(outcome: BaseException) -> tuple[str, str]:
    """Return code and detail of an error that is one image's own; any other is raised: the whole call failed."""
    if isinstance(outcome, RejectedFile):
        return outcome.code, f"{outcome.reason} {outcome.remedy}"
    if isinstance(outcome, GraftError) and not isinstance(outcome, Unavailable):
        return outcome.code, outcome.detail
    raise outcome


def _item(
    outcome: Any,
    model: "TrainedModel",
    thresholds: Sequence[float | None] | None,
    image: SentImage,
    options: PredictOptions,
    *,
    alone: bool,
) -> Prediction:
    if not isinstance(outcome, BaseException):
        return described(model, outcome, image.name, options, thresholds)
    code, detail = image_error(outcome)
    if alone:
        raise Invalid(detail, code=code, errors=[FieldError(image.name or "body", detail, code)]) from None
    return Prediction(file=image.name, status="error", error=PredictionError(code=code, detail=detail))


def described(
    model: "TrainedModel",
    answer: Any,
    name: str | None,
    options: Naming,
    thresholds: Sequence[float | None] | None = None,
) -> Prediction:
    """Return what a model says of one image, with what the options ask for."""
    return Prediction(file=name, status="ok", **model.answers.describe(answer, options, thresholds))
