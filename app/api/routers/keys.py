"""Create, list and revoke API keys, for callers with the scope `admin`."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.api.deps import Admin, Cursor, Limit, ReadSession, WriteSession
from app.api.routes import Route
from app.api.views import ListOut, problems
from app.auth import service as auth
from app.auth.schemas import CreatedKey, KeyOut, NewKey

router = APIRouter(prefix="/v1/keys", tags=["keys"], route_class=Route)


@router.post("", status_code=201, response_model=CreatedKey, responses=problems(422), summary="Create a key")
def create_key(body: NewKey, admin: Admin, session: WriteSession) -> Any:
    """Create a key. Its secret is in this response and is not stored, so the call accepts no `Idempotency-Key`."""
    key, secret = auth.create_key(session, admin.workspace_id, body.name, body.scopes)
    view = CreatedKey(secret=secret, **KeyOut.model_validate(key).model_dump())
    return JSONResponse(view.model_dump(mode="json"), status_code=201, headers={"Location": f"/v1/keys/{key.id}"})


@router.get("", responses=problems(422), summary="List keys")
def list_keys(admin: Admin, session: ReadSession, limit: Limit = 50, cursor: Cursor = None) -> ListOut[KeyOut]:
    page = auth.list_keys(session, admin.workspace_id, limit=limit, cursor=cursor)
    return ListOut(items=[KeyOut.model_validate(key) for key in page.items], next_cursor=page.next_cursor)


@router.delete("/{key_id}", responses=problems(404), summary="Revoke a key")
def revoke_key(key_id: UUID, admin: Admin, session: WriteSession) -> KeyOut:
    return KeyOut.model_validate(auth.revoke_key(session, admin.workspace_id, key_id))
