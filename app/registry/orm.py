"""Define the tables of models and of their aliases."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, String, false
from sqlalchemy.orm import Mapped, mapped_column

from app.auth.orm import Workspace
from app.core.clock import DatabaseTime, UtcDateTime
from app.core.database import Base, Json
from app.core.ids import new_id
from app.datasets.orm import DatasetVersion


class Model(Base):
    """A trained model. It exists exactly if its job succeeded; its bytes are the blob `artefact_sha256`."""

    __tablename__ = "models"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(Workspace.id), index=True)
    job_id: Mapped[UUID] = mapped_column(unique=True)  # no foreign key: old jobs are forgotten, and models stay
    dataset_version_id: Mapped[UUID] = mapped_column(ForeignKey(DatasetVersion.id))
    parent_id: Mapped[UUID | None]  # no foreign key: the parent may be deleted, and its place in `lineage` stays
    lineage: Mapped[list[dict[str, Any]]] = mapped_column(Json)
    name: Mapped[str] = mapped_column(String(100))
    backbone: Mapped[str] = mapped_column(String(64))
    classes: Mapped[list[str]] = mapped_column(Json)
    preprocessing: Mapped[dict[str, Any]] = mapped_column(Json)
    metrics: Mapped[dict[str, Any]] = mapped_column(Json)
    # The job's spec, its epochs, and which of them was the best: the job may be forgotten.
    training: Mapped[dict[str, Any]] = mapped_column(Json)
    # Pictures and tables: by their file's name, {"sha256", "size"} of the blob.
    files: Mapped[dict[str, dict[str, Any]]] = mapped_column(Json)
    # The target precision with the thresholds that reach it, and their results on each split.
    decisions: Mapped[dict[str, Any] | None] = mapped_column(Json)
    artefact_sha256: Mapped[str] = mapped_column(String(64))
    artefact_size: Mapped[int] = mapped_column(BigInteger)
    pinned: Mapped[bool] = mapped_column(server_default=false(), default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())


class ModelAlias(Base):
    """A word for one of the models of a name, such as `production`; it can be moved to another of them."""

    __tablename__ = "model_aliases"

    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(Workspace.id), primary_key=True)
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    model_id: Mapped[UUID] = mapped_column(ForeignKey(Model.id, ondelete="CASCADE"), index=True)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime(), onupdate=DatabaseTime())
