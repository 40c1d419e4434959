"""Uploads can come in chunks: how much of each is there, until when it waits, and what became of it.

The row says how many bytes are safely on disk; the file may hold more, which count for nothing. The last byte counts
when the dataset exists, so a process that dies in between costs the caller that one byte.
"""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime
from app.core.database import Database
from app.core.errors import NotFound
from app.core.ids import parse_id
from app.datasets.orm import ResumableUpload


def create(
    session: Session,
    workspace_id: UUID,
    *,
    length: int,
    filename: str | None,
    sha256: str | None,
    options: dict[str, Any],
    expiry_seconds: float,
) -> ResumableUpload:
    """Return an upload of `length` bytes of which none has come. `options` say what to make of it when all have."""
    upload = ResumableUpload(
        workspace_id=workspace_id,
        length=length,
        filename=filename,
        sha256=sha256,
        options=options,
        expires_at=DatabaseTime(expiry_seconds),
    )
    session.add(upload)
    session.flush()
    session.refresh(upload)
    return upload


def get(session: Session, workspace_id: UUID, upload_id: UUID, *, lock: bool = False) -> ResumableUpload:
    query = select(ResumableUpload).where(
        ResumableUpload.id == upload_id,
        ResumableUpload.workspace_id == workspace_id,
        ResumableUpload.expires_at > DatabaseTime(),
    )
    if lock:  # what this session read before it had the lock may be out of date
        query = query.with_for_update().execution_options(populate_existing=True)
    upload = session.scalar(query)
    if upload is None:
        raise NotFound(f"There is no upload {upload_id} here: it was ended, or expired. POST /v1/uploads begins one.")
    return upload


def advance(
    session: Session, workspace_id: UUID, upload_id: UUID, received: int, expiry_seconds: float
) -> ResumableUpload:
    """Say that so many bytes are on disk; the time until the upload expires begins anew."""
    upload: ResumableUpload | None = session.scalar(
        update(ResumableUpload)
        .where(ResumableUpload.id == upload_id, ResumableUpload.workspace_id == workspace_id)
        .values(received=received, expires_at=DatabaseTime(expiry_seconds))
        .returning(ResumableUpload)
    )
    if upload is None:
        raise NotFound(f"The upload {upload_id} was ended meanwhile. POST /v1/uploads begins another.")
    return upload


def finish(session: Session, upload: ResumableUpload, dataset_id: UUID) -> None:
    """Note that the dataset was made of it. The row stays until it expires, for callers who missed the answer."""
    upload.received, upload.dataset_id = upload.length, dataset_id
    session.flush()


def end(session: Session, upload_id: UUID) -> None:
    """Forget an upload. Whoever removes the file does so after the commit."""
    session.execute(delete(ResumableUpload).where(ResumableUpload.id == upload_id))


def remove_expired(database: Database, folder: Path) -> int:
    """Remove expired uploads, and files in `folder` that belong to no upload. Return the number of removed files.

    A file is made after its row was committed, so one whose row is not there has lost it.
    """
    files = {known: path for path in _files(folder) if (known := parse_id(path.name)) is not None}
    with database.reading() as session:
        expired = session.scalar(
            select(ResumableUpload.id).where(ResumableUpload.expires_at <= DatabaseTime()).limit(1)
        )
    if expired is not None:
        with database.writing() as session:
            session.execute(delete(ResumableUpload).where(ResumableUpload.expires_at <= DatabaseTime()))
    orphans = files.keys() - _unfinished(database, files)
    for upload_id in orphans:
        with suppress(FileNotFoundError):
            files[upload_id].unlink()
    return len(orphans)


def _files(folder: Path) -> Collection[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _unfinished(database: Database, ids: Collection[UUID]) -> set[UUID]:
    with database.reading() as session:
        rows = session.scalars(select(ResumableUpload.id).where(ResumableUpload.dataset_id.is_(None)))
        return set(ids) & set(rows)
