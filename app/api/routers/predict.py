"""Classify images with a model, and say which models stay loaded."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api.deps import Predictor, Services, ServicesDep, Writer
from app.api.images import IMAGES_BODY, read_images, resolve
from app.api.refusals import caller
from app.api.views import problems
from app.core.errors import Unavailable
from app.core.ids import parse_id
from app.core.logging import log
from app.datasets import service as datasets
from app.predictions.references import COLUMNS, ModelReference, reference
from app.predictions.schemas import JsonImage, PredictOptions, PredictOut
from app.predictions.service import SentImage
from app.predictions.timing import Times
from app.registry import service as registry
from app.registry.orm import Model
from app.registry.schemas import ModelOut

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post(
    "/{model}/predict",
    response_model=PredictOut,
    responses={
        207: {"model": PredictOut, "description": "Some images could not be read"},
        **problems(404, 409, 413, 415, 422),
    },
    openapi_extra=IMAGES_BODY,
    summary="Classify images",
)
async def predict(
    model: str,
    request: Request,
    predictor: Predictor,
    services: ServicesDep,
    options: Annotated[PredictOptions, Query()],
) -> Any:
    """`curl --data-binary @x.jpg -H 'Content-Type: image/jpeg'`, or `curl -F file=@a.jpg -F file=@b.jpg`.

    `model` is an id, a name (its newest model), or `name@alias`. Of several images an unreadable one has its own
    `error` and the answer is a 207. Nothing is stored. Past a bounded queue, or past the call's deadline, the answer
    is a 503 with `Retry-After`. An `engine` that cannot be made of this model is a 409.
    """
    times: list[Times] = []
    request.state.times = times
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else services.settings.max_predict_bytes
    with services.admission.enter(min(size, services.settings.max_predict_bytes)):
        sent, options = await read_images(request, options, services.settings.max_predict_files)
        found, images = await _find(services, predictor.workspace_id, model, sent)
        timeout = options.timeout or services.settings.predict_seconds
        try:
            answer = await services.predictions.predict(found, images, options, timeout=timeout, times=times)
        except Unavailable as error:
            if error.code == "overloaded" and (who := caller(request.scope)) is not None:
                services.admission.refuse(who, error)
            raise
    partial = any(item.status == "error" for item in answer.items)
    return Response(answer.model_dump_json(), status_code=207 if partial else 200, media_type="application/json")


async def _find(
    services: Services, workspace_id: UUID, model: str, sent: list[SentImage | JsonImage]
) -> tuple[ModelReference, list[SentImage]]:
    """The model and the images. What an id means never changes, so it need not be asked for in every call."""
    model_id, recent = parse_id(model), services.references
    now, known = recent.now, None if model_id is None else recent.get((workspace_id, model_id))
    images = [image for image in sent if isinstance(image, SentImage)]
    if known is not None and len(images) == len(sent):
        return known, images
    found, images = await run_in_threadpool(_read, services, workspace_id, model, sent)
    return found if model_id is None else recent.put((workspace_id, model_id), found, now), images


def _read(
    services: Services, workspace_id: UUID, model: str, sent: list[SentImage | JsonImage]
) -> tuple[ModelReference, list[SentImage]]:
    with services.database.reading() as session:
        found = reference(registry.find(session, workspace_id, model, columns=COLUMNS))
        images = resolve(sent, lambda wanted: datasets.find_images(session, workspace_id, wanted), services.store.read)
    return found, images


@router.post("/{model_id}:pin", responses=problems(404, 422), summary="Keep a model loaded")
def pin_model(model_id: UUID, writer: Writer, services: ServicesDep) -> ModelOut:
    """It is loaded now and whenever the service starts, and never unloaded to make room or for being idle."""
    model = _set_pinned(services, writer.workspace_id, model_id, True)
    _load(services, model)
    return ModelOut.model_validate(model)


@router.post("/{model_id}:unpin", responses=problems(404, 422), summary="Let a model be unloaded")
def unpin_model(model_id: UUID, writer: Writer, services: ServicesDep) -> ModelOut:
    """From now on it is unloaded like any other."""
    model = _set_pinned(services, writer.workspace_id, model_id, False)
    services.predictions.models.tell(reference(model))
    return ModelOut.model_validate(model)


def _set_pinned(services: Services, workspace_id: UUID, model_id: UUID, pinned: bool) -> Model:
    with services.database.writing() as session:
        model = registry.get(session, workspace_id, model_id)
        model.pinned = pinned
        session.flush()
        return model


def load_pinned(services: Services) -> None:
    """Begin to load what is to stay loaded; a service whose database is away starts without."""
    try:
        with services.database.reading() as session:
            models = registry.pinned(session)
    except Exception as error:  # no table yet, no server: /readyz says so
        log.warning("pinned_models_not_loaded", error=str(error))
        return
    for model in models:
        _load(services, model)


def _load(services: Services, model: Model) -> None:
    """Begin to load a model; nobody waits for it here."""
    try:
        with services.predictions.models.lease(reference(model)):
            pass
    except Unavailable as error:
        log.warning("model_not_loaded", model=str(model.id), detail=error.detail)
