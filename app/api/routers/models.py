"""List, show and delete models, and manage their aliases."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path
from fastapi.responses import Response

from app.api.deps import Cursor, Limit, Reader, ReadSession, ServicesDep, Writer, WriteSession
from app.api.routes import Route
from app.api.views import ListOut, ServedModel, problems, served_model
from app.predictions.references import reference
from app.registry import service as registry
from app.registry.schemas import AliasOut, AliasTarget, ModelOut

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Route)

Alias = Annotated[
    str,
    Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="A word such as `production`."),
]


@router.get("", responses=problems(422), summary="List models")
def list_models(
    reader: Reader, session: ReadSession, limit: Limit = 50, cursor: Cursor = None, name: str | None = None
) -> ListOut[ModelOut]:
    page = registry.list_models(session, reader.workspace_id, name=name, limit=limit, cursor=cursor)
    return ListOut(items=[ModelOut.model_validate(model) for model in page.items], next_cursor=page.next_cursor)


@router.get("/{model}", responses=problems(404, 422), summary="Get a model")
def get_model(model: str, reader: Reader, services: ServicesDep, session: ReadSession) -> ServedModel:
    """Get a model by id, name (its newest model) or `name@alias`."""
    found = registry.find(session, reader.workspace_id, model)
    return served_model(session, found, services.predictions.models.serving(reference(found)))


@router.delete("/{model_id}", status_code=204, responses=problems(404, 422), summary="Delete a model")
def delete_model(model_id: UUID, writer: Writer, session: WriteSession) -> Response:
    """Delete a model, by its id only, and the aliases that mean it."""
    registry.delete(session, registry.get(session, writer.workspace_id, model_id))
    return Response(status_code=204)


@router.get("/{name}/aliases", responses=problems(404, 422), summary="List a name's aliases")
def list_aliases(name: str, reader: Reader, session: ReadSession) -> ListOut[AliasOut]:
    """List all aliases of a name, in alphabetical order."""
    found = registry.aliases(session, reader.workspace_id, name)
    return ListOut(items=[AliasOut.model_validate(one) for one in found])


@router.put("/{name}/aliases/{alias}", responses=problems(404, 422), summary="Point an alias at a model")
def put_alias(name: str, alias: Alias, target: AliasTarget, writer: Writer, session: WriteSession) -> AliasOut:
    """Make `name@alias` mean this model from the next call on; the model must have this name. Calls that are running
    are not affected."""
    return AliasOut.model_validate(registry.set_alias(session, writer.workspace_id, name, alias, target.model))


@router.delete("/{name}/aliases/{alias}", status_code=204, responses=problems(404, 422), summary="Delete an alias")
def delete_alias(name: str, alias: Alias, writer: Writer, session: WriteSession) -> Response:
    registry.delete_alias(session, writer.workspace_id, name, alias)
    return Response(status_code=204)
