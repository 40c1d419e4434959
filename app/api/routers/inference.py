"""Serve the Open Inference Protocol v2 (KServe, Triton) with the models, queues and deadlines of predict calls."""

import json
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app import __version__
from app.api.deps import PredictCaller, Reader, ReadSession, Services, ServicesDep
from app.api.routers.health import readiness_of
from app.api.routes import IMAGES, Route, takes
from app.api.views import problems
from app.core.errors import NotFound, Unavailable
from app.core.ids import parse_id
from app.core.paging import MAX_LIMIT
from app.predictions.inference.protocol import (
    ModelMetadata,
    Prepare,
    check_outputs,
    metadata,
    read_images,
    read_request,
    write_answer,
)
from app.predictions.inference.tensors import InferRequest, refuse
from app.predictions.references import COLUMNS, ModelReference, reference
from app.predictions.service import image_error
from app.predictions.serving.timing import Times
from app.registry import service as registry
from app.registry.orm import Model
from app.vision.images.preprocessing import Preprocessing

router = APIRouter(prefix="/v2", tags=["inference protocol"], route_class=Route)

_HEADER = "Inference-Header-Content-Length"
_BODY = {
    "requestBody": {
        "required": True,
        "description": f"JSON or, with the header {_HEADER}, that many bytes of JSON followed by binary tensors.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


class ServerMetadata(BaseModel):
    name: Literal["graftwork"] = "graftwork"
    version: str = __version__
    extensions: list[str] = ["binary_tensor_data", "classification"]


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(Ready):
    name: str


class Answer(BaseModel):
    """A model's answers for the images, as tensors."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[dict[str, Any]]


@router.get("", responses=problems(), summary="Get the server's name and version")
def server_metadata(reader: Reader) -> ServerMetadata:
    return ServerMetadata()


@router.get("/health/live", summary="Check that the process is alive (v2)")
async def live() -> Live:
    return Live(live=True)


@router.get("/health/ready", summary="Check that the service can answer (v2)")
async def ready(request: Request) -> Ready:
    found = await readiness_of(request).for_answers()
    if found["answers"] != "ok":
        bad = ", ".join(f"{name}: {word}" for name, word in found.items() if word != "ok")
        raise Unavailable(f"This service cannot answer now ({bad}).", code="not_ready", retry_after=1)
    return Ready(ready=True)


@router.get("/models/{model}", responses=problems(404, 422), summary="Get a model's inputs and outputs")
def model_metadata(model: str, reader: Reader, session: ReadSession) -> ModelMetadata:
    """Get a model by id, name (its newest model) or `name@alias`. The versions of a name are the ids of its models."""
    found = registry.find(session, reader.workspace_id, model)
    versions = [str(found.id)]
    if model == found.name:
        page = registry.list_models(session, reader.workspace_id, name=model, limit=MAX_LIMIT, cursor=None)
        versions = [str(one.id) for one in reversed(page.items)]
    return metadata(model, versions, Preprocessing.from_dict(found.preprocessing), len(found.classes))


@router.get(
    "/models/{model}/versions/{version}", responses=problems(404, 422), summary="Get a version's inputs and outputs"
)
def version_metadata(model: str, version: str, reader: Reader, session: ReadSession) -> ModelMetadata:
    found = _find(session, reader.workspace_id, model, version)
    return metadata(model, [str(found.id)], Preprocessing.from_dict(found.preprocessing), len(found.classes))


@router.get("/models/{model}/ready", responses=problems(404, 422), summary="Check that a model can answer")
def model_ready(model: str, reader: Reader, services: ServicesDep, session: ReadSession) -> ModelReady:
    """Check that a model is not unhealthy. A model that is not loaded yet counts as ready; the first call loads it."""
    return _ready(services, _find(session, reader.workspace_id, model, None), model)


@router.get(
    "/models/{model}/versions/{version}/ready", responses=problems(404, 422), summary="Check that a version can answer"
)
def version_ready(model: str, version: str, reader: Reader, services: ServicesDep, session: ReadSession) -> ModelReady:
    return _ready(services, _find(session, reader.workspace_id, model, version), model)


def _ready(services: Services, found: Model, name: str) -> ModelReady:
    serving = services.predictions.models.serving(reference(found))
    if serving.state == "unhealthy":
        raise Unavailable(serving.detail or "The model is unhealthy.", code="model_unhealthy", retry_after=1)
    return ModelReady(ready=True, name=name)


Length = Annotated[int | None, Header(alias=_HEADER, ge=0, description="Bytes of JSON before the binary tensors.")]


@router.post(
    "/models/{model}/infer",
    response_model=Answer,
    responses=problems(404, 413, 422),
    openapi_extra=_BODY,
    summary="Classify images given as tensors",
)
@takes(IMAGES)
async def infer(
    model: str, request: Request, caller: PredictCaller, services: ServicesDep, length: Length = None
) -> Any:
    """Classify the images of one input.

    The input is `encoded` (BYTES: files, in JSON as base64), `pixels` (UINT8: RGB of any size, which the service
    preprocesses) or `normalized` (FP32: preprocessed as `preprocessing` of `/v1/models/{model}` says, and rounded to
    whole pixel values). The outputs are `probabilities` and `labels` and, if the request names them, `decisions` and
    `ood_score`.
    """
    return await _infer(request, services, caller.workspace_id, model, None, length)


@router.post(
    "/models/{model}/versions/{version}/infer",
    response_model=Answer,
    responses=problems(404, 413, 422),
    openapi_extra=_BODY,
    summary="Classify with one version",
)
@takes(IMAGES)
async def infer_version(
    model: str, version: str, request: Request, caller: PredictCaller, services: ServicesDep, length: Length = None
) -> Any:
    return await _infer(request, services, caller.workspace_id, model, version, length)


async def _infer(
    request: Request, services: Services, workspace_id: UUID, model: str, version: str | None, length: int | None
) -> Response:
    times: list[Times] = []
    request.state.times = times
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else services.settings.max_predict_bytes
    with services.admission.enter(min(size, services.settings.max_predict_bytes)):
        found, preprocessing = await run_in_threadpool(_look_up, services, workspace_id, model, version)
        asked, images = await run_in_threadpool(_read, services, preprocessing, await request.body(), length)
        timeout = (asked.parameters.timeout or 0) / 1e6 or services.settings.predict_seconds
        loaded, outcomes = await services.predictions.answers(found, images, timeout=timeout, times=times)
        answers = []
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, BaseException):
                code, detail = image_error(outcome)
                raise refuse(f"{asked.inputs[0].name}[{number}]", detail, code)
            answers.append(outcome)
    about = {
        "model_name": model,
        "model_version": str(found.model_id),
        "parameters": {"engine": loaded.engine.name},
    }
    answer, behind = write_answer(asked, about, loaded, answers, found.thresholds)
    head = json.dumps(answer).encode()
    if not behind:
        return Response(head, media_type="application/json")
    return Response(head + behind, media_type="application/octet-stream", headers={_HEADER: str(len(head))})


def _look_up(
    services: Services, workspace_id: UUID, model: str, version: str | None
) -> tuple[ModelReference, Preprocessing]:
    """Return the model and how it prepares images, before anything of the body is read."""
    with services.database.reading() as session:
        row = _find(session, workspace_id, model, version)
        return reference(row), Preprocessing.from_dict(row.preprocessing)


def _read(
    services: Services, preprocessing: Preprocessing, body: bytes, length: int | None
) -> tuple[InferRequest, list[Prepare]]:
    try:
        asked, binary = read_request(body, length)
    except ValidationError as error:
        raise RequestValidationError(
            [one | {"loc": ("body", *one["loc"])} for one in error.errors(include_url=False)]
        ) from None
    check_outputs(asked)
    settings = services.settings
    limits, most = services.predictions.limits, settings.max_predict_files
    return asked, read_images(asked, binary, preprocessing, limits, most)


_COLUMNS = (*COLUMNS, Model.name, Model.preprocessing)


def _find(session: Session, workspace_id: UUID, model: str, version: str | None) -> Model:
    found = registry.find(session, workspace_id, model, columns=_COLUMNS)
    if version is None or version == str(found.id):
        return found
    if (other := parse_id(version)) is not None and model == found.name:
        found = registry.get(session, workspace_id, other, columns=_COLUMNS)
        if found.name == model:
            return found
    raise NotFound(f"{model!r} has no version {version!r}; GET /v2/models/{model} lists them.", code="unknown_version")
