"""This module has the tables of datasets, the images in them, and their frozen versions."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.auth.orm import Workspace
from app.core.clock import DatabaseTime, UtcDateTime
from app.core.database import Base, Json, enum_column
from app.core.ids import new_id
from app.datasets.states import DatasetState

_NAMED = text("deleted_at IS NULL AND state <> 'failed'")


class Dataset(Base):
    """A dataset is a named, mutable collection of labelled images. A deleted one stays as a row that models can point
    to."""

    __tablename__ = "datasets"
    __table_args__ = (
        # A name is free again once its dataset is deleted, or could not be read.
        Index(
            "uq_datasets_workspace_name",
            "workspace_id",
            "name",
            unique=True,
            sqlite_where=_NAMED,
            postgresql_where=_NAMED,
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(Workspace.id), index=True)
    name: Mapped[str] = mapped_column(String(100))
    state: Mapped[DatasetState] = mapped_column(enum_column(DatasetState), default=DatasetState.processing)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    upload: Mapped[dict[str, Any]] = mapped_column(Json)
    archive_sha256: Mapped[str | None] = mapped_column(String(64))
    failure: Mapped[dict[str, Any] | None] = mapped_column(Json)
    report: Mapped[dict[str, Any] | None] = mapped_column(Json)


class ResumableUpload(Base):
    """A resumable upload is an archive that comes in chunks. Its bytes lie in a file that is called by its id, until
    the last has come."""

    __tablename__ = "resumable_uploads"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    workspace_id: Mapped[UUID] = mapped_column(ForeignKey(Workspace.id), index=True)
    length: Mapped[int] = mapped_column(BigInteger)
    # Bytes that are safely on disk. It is `length` exactly when the dataset exists.
    received: Mapped[int] = mapped_column(BigInteger, default=0)
    filename: Mapped[str | None] = mapped_column(Text)
    options: Mapped[dict[str, Any]] = mapped_column(Json)
    sha256: Mapped[str | None] = mapped_column(String(64))  # that the whole has to have
    dataset_id: Mapped[UUID | None] = mapped_column(ForeignKey(Dataset.id))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DatasetImage(Base):
    """A dataset has each image once. Its bytes are the blob `sha256`; another dataset may hold the same blob."""

    __tablename__ = "dataset_images"
    __table_args__ = (UniqueConstraint("dataset_id", "sha256"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey(Dataset.id), index=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    name: Mapped[str] = mapped_column(Text)
    label: Mapped[str] = mapped_column(String(255))
    split: Mapped[str] = mapped_column(String(8))
    width: Mapped[int]
    height: Mapped[int]
    size: Mapped[int]
    phash: Mapped[str | None] = mapped_column(String(16))  # none of images that came before it was kept
    # What else the upload said of it. `metadata` is a name that SQLAlchemy keeps for itself.
    extra: Mapped[dict[str, Any] | None] = mapped_column("metadata", Json)


class VersionImage(Base):
    """A version holds an image: its blob is kept for the version's sake, and its lineage can be told."""

    __tablename__ = "dataset_version_images"

    version_id: Mapped[UUID] = mapped_column(ForeignKey("dataset_versions.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class DatasetVersion(Base):
    """A version is a frozen manifest, kept as the blob `manifest_sha256`. Jobs train on versions, so any model can be
    repeated."""

    __tablename__ = "dataset_versions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey(Dataset.id), index=True)
    number: Mapped[int]
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    classes: Mapped[list[str]] = mapped_column(Json)
    counts: Mapped[dict[str, dict[str, int]]] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=DatabaseTime())
