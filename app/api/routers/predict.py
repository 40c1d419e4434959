"""Classify images with a model, while the caller waits."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from app.api.deps import PredictCaller, Services, ServicesDep
from app.api.images import IMAGES_BODY, read_images, resolve
from app.api.predict_path.route import DirectRoute, the_call
from app.api.routes import IMAGES, takes
from app.api.views import problems
from app.core.ids import parse_id
from app.datasets import service as datasets
from app.predictions.references import COLUMNS, ModelReference, reference
from app.predictions.schemas import JsonImage, PredictOptions, PredictOut
from app.predictions.service import SentImage
from app.predictions.serving.batcher import Overloaded
from app.predictions.serving.timing import Times
from app.registry import service as registry


async def _read_options(
    request: Request, services: ServicesDep, options: Annotated[PredictOptions, Query()]
) -> PredictOptions:
    """Return what the query asks for, and keep it for the calls to come."""
    services.predict_path.queries.put(request.scope["query_string"], options)
    return options


router = APIRouter(prefix="/v1/models", tags=["models"], route_class=DirectRoute)


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
@takes(IMAGES)
async def predict(
    model: str,
    request: Request,
    caller: PredictCaller,
    services: ServicesDep,
    options: Annotated[PredictOptions, Depends(_read_options)],
) -> Response:
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
        found = await _find(services, caller.workspace_id, model)
        sent, options = await read_images(request, options, services.settings.max_predict_files)
        images = await _stored(services, caller.workspace_id, sent)
        timeout = options.timeout or services.settings.predict_seconds
        try:
            answer = await services.predictions.predict(found, images, options, timeout=timeout, times=times)
        except Overloaded as error:
            # A quarter: by then what waits is not at its end.
            services.predict_path.refusals.put(the_call(request), error, error.wait / 4)
            raise
    partial = any(item.status == "error" for item in answer.items)
    return Response(answer.model_dump_json(), status_code=207 if partial else 200, media_type="application/json")


async def _find(services: Services, workspace_id: UUID, model: str) -> ModelReference:
    """Return the model; one that was asked for by its id a moment ago is not looked up again."""
    read, model_id = partial(_read, services, workspace_id, model), parse_id(model)
    return await services.predict_path.models.find((workspace_id, model_id or model), read, fresh=model_id is None)


def _read(services: Services, workspace_id: UUID, model: str) -> ModelReference:
    with services.database.reading() as session:
        return reference(registry.find(session, workspace_id, model, columns=COLUMNS))


async def _stored(services: Services, workspace_id: UUID, sent: list[SentImage | JsonImage]) -> list[SentImage]:
    """Return the images, with those that are named by ids found in the workspace."""
    images = [image for image in sent if isinstance(image, SentImage)]
    if len(images) == len(sent):
        return images

    def find() -> list[SentImage]:
        with services.database.reading() as session:
            return resolve(
                sent, lambda wanted: datasets.find_images(session, workspace_id, wanted), services.store.read
            )

    return await run_in_threadpool(find)
