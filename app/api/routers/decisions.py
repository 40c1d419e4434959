"""Set and remove a model's target precision without training."""

from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import Response

from app.api.deps import ServicesDep, Writer, WriteSession
from app.api.routes import Route
from app.api.views import problems
from app.registry import service as registry
from app.registry.decisions import decisions_for
from app.registry.schemas import Decisions, DecisionTarget

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Route)


@router.put("/{model_id}/decisions", responses=problems(404, 409, 422), summary="Set a model's target precision")
def put_decisions(model_id: UUID, target: DecisionTarget, writer: Writer, services: ServicesDep) -> Decisions:
    """Choose thresholds from the model's answers for its validation images; they apply from the next call on. A class
    whose validation images do not prove the target precision is never accepted."""
    with services.database.reading() as session:
        model = registry.get(session, writer.workspace_id, model_id)
    found = decisions_for(services.store, model, target.target_precision)  # may be long, and holds no transaction
    with services.database.writing() as session:
        registry.get(session, writer.workspace_id, model_id).decisions = found
    return Decisions.model_validate(found)


@router.delete(
    "/{model_id}/decisions", status_code=204, responses=problems(404, 422), summary="Remove a model's target precision"
)
def delete_decisions(model_id: UUID, writer: Writer, session: WriteSession) -> Response:
    """Remove the target precision. From then on a `decision` is `unknown` or null."""
    registry.get(session, writer.workspace_id, model_id).decisions = None
    session.flush()
    return Response(status_code=204)
