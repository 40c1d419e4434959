"""Answer a create call that is repeated under the same `Idempotency-Key` with the first response.

The key, the created thing and the response are written in one transaction. A second request under the same key that
comes while the first one runs waits at the key's row in the database, and then finds the response.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.api.orm import IdempotentAnswer
from app.core.errors import FieldError, Invalid

HEADER = "Idempotency-Key"


def fingerprint(*parts: Any) -> str:
    """Return a hash of all `parts`; two requests are the same if their hashes are equal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def answer_once(
    session: Session,
    workspace_id: UUID,
    key: str | None,
    request_sha256: str,
    create: Callable[[], JSONResponse],
) -> JSONResponse:
    """Return what `create` returns or, if this key was used before, the response stored under it.

    Without a key, `create` always runs. Raises `Invalid` if the key was used for another request.
    """
    if key is None:
        return create()
    row = IdempotentAnswer(workspace_id=workspace_id, key=key, request_sha256=request_sha256, status=0, body={})
    try:
        with session.begin_nested():
            session.add(row)
            session.flush()
    except IntegrityError:
        return _replay(session.get_one(IdempotentAnswer, (workspace_id, key)), request_sha256)
    response = create()
    row.status, row.body = response.status_code, json.loads(bytes(response.body))
    row.location = response.headers.get("location")
    session.flush()
    return response


def _replay(row: IdempotentAnswer, request_sha256: str) -> JSONResponse:
    if row.request_sha256 != request_sha256:
        detail = f"The {HEADER} {row.key!r} was used for another request. Use a new key for a new request."
        raise Invalid(detail, code="idempotency_key_reused", errors=[FieldError(HEADER, detail)])
    headers = {"Location": row.location} if row.location else {}
    return JSONResponse(row.body, status_code=row.status, headers={**headers, "Idempotent-Replayed": "true"})
