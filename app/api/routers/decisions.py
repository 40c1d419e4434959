"""Which answers of a model are accepted: a target of precision, set and taken away without training."""

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


@router.put(
    "/{model_id}/decisions", responses=problems(404, 409, 422), summary="Set what a model's answers are held to"
)
def put_decisions(model_id: UUID, target: DecisionTarget, writer: Writer, services: ServicesDep) -> Decisions:
    """Thresholds are chosen on what the model said of its validation images, and hold from the next call on. A class
    that cannot show the target there is never accepted."""
    with services.database.reading() as session:
        model = registry.get(session, writer.workspace_id, model_id)
    found = decisions_for(services.store, model, target.target_precision)  # may be long, and holds no transaction
    with services.database.writing() as session:
        registry.get(session, writer.workspace_id, model_id).decisions = found
    return Decisions.model_validate(found)


@router.delete("/{model_id}/decisions", status_code=204, responses=problems(404, 422), summary="Take the target away")
def delete_decisions(model_id: UUID, writer: Writer, session: WriteSession) -> Response:
    """Answers are `unknown` or undecided from then on."""
    registry.get(session, writer.workspace_id, model_id).decisions = None
    session.flush()
    return Response(status_code=204)
