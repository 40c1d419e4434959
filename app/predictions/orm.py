"""Define the table of the measurements of a model's engines on each kind of machine."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.core.clock import DatabaseTime, UtcDateTime
from app.core.database import Base, Json
from app.registry.orm import Model


class ModelEngine(Base):
    """The engine that a kind of machine uses for a model, and the measurements that it was chosen by."""

    __tablename__ = "model_engines"

    model_id: Mapped[UUID] = mapped_column(ForeignKey(Model.id, ondelete="CASCADE"), primary_key=True)
    machine: Mapped[str] = mapped_column(String(200), primary_key=True)
    chosen: Mapped[str] = mapped_column(String(32))
    measured: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    measured_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime(), onupdate=DatabaseTime())
