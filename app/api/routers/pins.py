"""Pin and unpin models: a pinned model stays loaded."""

from uuid import UUID

from fastapi import APIRouter

from app.api.deps import Services, ServicesDep, Writer
from app.api.routes import Route
from app.api.views import problems
from app.core.errors import Unavailable
from app.core.logging import log
from app.predictions.references import ModelReference, reference
from app.registry import service as registry
from app.registry.orm import Model
from app.registry.schemas import ModelOut

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Route)


@router.post("/{model_id}:pin", responses=problems(404, 422), summary="Keep a model loaded")
def pin_model(model_id: UUID, writer: Writer, services: ServicesDep) -> ModelOut:
    """Load the model now and whenever the service starts, and never unload it for lack of memory or for being idle."""
    model = _set_pinned(services, writer.workspace_id, model_id, True)
    _load(services, model)
    return ModelOut.model_validate(model)


@router.post("/{model_id}:unpin", responses=problems(404, 422), summary="Let a model be unloaded")
def unpin_model(model_id: UUID, writer: Writer, services: ServicesDep) -> ModelOut:
    """Allow the model to be unloaded like any other."""
    model = _set_pinned(services, writer.workspace_id, model_id, False)
    services.predictions.models.tell(reference(model))
    return ModelOut.model_validate(model)


def _set_pinned(services: Services, workspace_id: UUID, model_id: UUID, pinned: bool) -> Model:
    with services.database.writing() as session:
        model = registry.get(session, workspace_id, model_id)
        model.pinned = pinned
        session.flush()
        return model


def load_pinned(services: Services) -> list[ModelReference]:
    """Begin to load the models that are to stay loaded, and return them."""
    with services.database.reading() as session:
        models = registry.pinned(session)
    for model in models:
        _load(services, model)
    return [reference(model) for model in models]


def _load(services: Services, model: Model) -> None:
    """Begin to load a model, without waiting for it."""
    try:
        with services.predictions.models.lease(reference(model)):
            pass
    except Unavailable as error:
        log.warning("model_not_loaded", model=str(model.id), detail=error.detail)
