"""Define the table of responses that are kept for `Idempotency-Key`."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.auth.orm import Workspace
from app.core.clock import DatabaseTime, UtcDateTime
from app.core.database import Base, Json

KEPT_SECONDS = 24 * 3600


class IdempotentAnswer(Base):
    """The answer to the first request that a workspace sent under a key, written with the thing it created."""

    __tablename__ = "idempotent_answers"

    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(Workspace.id), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    location: Mapped[str | None] = mapped_column(String(255))
    body: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime(), index=True)
