"""Create, find and revoke API keys. A key is stored as its SHA-256 and shown once."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.auth.orm import ApiKey, Workspace
from app.auth.schemas import Scope
from app.core import outbox
from app.core.clock import DatabaseTime
from app.core.errors import Forbidden, NotFound, Unauthenticated
from app.core.paging import Page, paginate

DEFAULT_WORKSPACE = "default"
_PREFIX = "gw_"
_HOW = "Send 'Authorization: Bearer gw_...'; 'graft keys create' makes a key."


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: a key, its scopes, and the workspace it belongs to."""

    workspace_id: UUID
    key_id: UUID
    scopes: frozenset[Scope]

    def require(self, needed: Scope) -> None:
        if not any(scope.covers(needed) for scope in self.scopes):
            raise Forbidden(
                f"This key has the scopes {', '.join(sorted(self.scopes))}; this call needs '{needed}'. "
                f"Use a key with that scope: graft keys create NAME --scope {needed}.",
                code="missing_scope",
            )


def ensure_workspace(session: Session, name: str = DEFAULT_WORKSPACE) -> Workspace:
    """Return the workspace of that name, and create it if it does not exist."""
    found = session.scalar(select(Workspace).where(Workspace.name == name))
    if found is not None:
        return found
    workspace = Workspace(name=name)
    try:
        with session.begin_nested():
            session.add(workspace)
            session.flush()
    except IntegrityError:  # another process was first
        return session.scalars(select(Workspace).where(Workspace.name == name)).one()
    return workspace


def create_key(session: Session, workspace_id: UUID, name: str, scopes: Sequence[Scope]) -> tuple[ApiKey, str]:
    """Create a key; return it and its secret. 256 random bits need no slow hash and no salt."""
    secret = _PREFIX + secrets.token_urlsafe(32)
    key = ApiKey(
        workspace_id=workspace_id,
        name=name,
        prefix=secret[:9],
        secret_sha256=_digest(secret),
        scopes=[scope.value for scope in dict.fromkeys(scopes)],
    )
    session.add(key)
    session.flush()
    _tell(session, key, "created")
    return key, secret


def _tell(session: Session, key: ApiKey, what: str) -> None:
    outbox.tell(
        session, key.workspace_id, f"key.{what}", key.id, {"name": key.name, "prefix": key.prefix, "scopes": key.scopes}
    )


_KEY = select(ApiKey).where(ApiKey.secret_sha256 == bindparam("secret_sha256"))


def authenticate(session: Session, authorization: str | None) -> Principal:
    """Return the caller that an `Authorization` header identifies. Raises `Unauthenticated`."""
    if not authorization:
        raise Unauthenticated(f"This call needs an API key. {_HOW}")
    kind, _, secret = authorization.partition(" ")
    if kind.lower() != "bearer" or not secret.startswith(_PREFIX):
        raise Unauthenticated(f"The Authorization header does not hold a Graftwork key. {_HOW}")
    key = session.scalar(_KEY, {"secret_sha256": _digest(secret.strip())})
    if key is None:
        raise Unauthenticated(f"There is no such API key. {_HOW}")
    if key.revoked_at is not None:
        raise Unauthenticated(f"The API key {key.prefix}… ({key.name}) was revoked. {_HOW}", code="key_revoked")
    return Principal(key.workspace_id, key.id, frozenset(Scope(scope) for scope in key.scopes))


def is_valid(session: Session, key_id: UUID) -> bool:
    """Whether a key that was authenticated before is not revoked by now."""
    return session.scalar(select(ApiKey.id).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))) is not None


def list_keys(session: Session, workspace_id: UUID, *, limit: int, cursor: str | None) -> Page[ApiKey]:
    query = select(ApiKey).where(ApiKey.workspace_id == workspace_id)
    return paginate(session, query, ApiKey.id, limit=limit, cursor=cursor)


def revoke_key(session: Session, workspace_id: UUID, key_id: UUID) -> ApiKey:
    """Revoke a key for good and return it; revoking it again changes nothing."""
    key = session.scalar(select(ApiKey).where(ApiKey.id == key_id, ApiKey.workspace_id == workspace_id))
    if key is None:
        raise NotFound(f"There is no key {key_id}. 'graft keys list' shows them.")
    if key.revoked_at is None:
        key.revoked_at = DatabaseTime()
        session.flush()
        session.refresh(key)
        _tell(session, key, "revoked")
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
