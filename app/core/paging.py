"""This module pages through lists by UUIDv7 ids: newest first, stable while rows are added."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core.errors import FieldError, Invalid

MAX_LIMIT = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: Sequence[T]
    next_cursor: str | None


def paginate(
    session: Session, query: Select[T], key: InstrumentedAttribute[Any], *, limit: int, cursor: str | None
) -> Page[T]:
    """Return one page of `query`, newest first by `key` (a UUIDv7 column). `limit` is 1 to MAX_LIMIT."""
    if cursor is not None:
        query = query.where(key < _decode(cursor))
    rows = session.scalars(query.order_by(key.desc()).limit(limit + 1)).all()
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(rows, _encode(getattr(rows[-1], key.key)) if more else None)


def _encode(last: UUID) -> str:
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def _decode(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error):
        raise Invalid(
            f"{cursor!r} is not a cursor of this list.",
            code="bad_cursor",
            errors=[FieldError("cursor", "Use the next_cursor of the page before, unchanged, or leave it out.")],
        ) from None
