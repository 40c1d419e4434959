"""Models: record, find, delete."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import NotFound
from app.core.paging import Page, paginate
from app.jobs.orm import Job
from app.registry.orm import Model
from app.storage import Blob


def record(session: Session, job: Job, artefact: Blob, trained: dict[str, Any]) -> Model:
    """Write down the model that `job` made. `trained` holds classes, preprocessing and metrics."""
    assert job.dataset_version_id is not None
    model = Model(
        workspace_id=job.workspace_id,
        job_id=job.id,
        dataset_version_id=job.dataset_version_id,
        name=job.spec["model_name"],
        backbone=job.spec["backbone"],
        classes=trained["classes"],
        preprocessing=trained["preprocessing"],
        metrics=trained["metrics"],
        artefact_sha256=artefact.sha256,
        artefact_size=artefact.size,
    )
    session.add(model)
    session.flush()
    return model


def get(session: Session, workspace_id: UUID, model_id: UUID) -> Model:
    model = session.scalar(select(Model).where(Model.id == model_id, Model.workspace_id == workspace_id))
    if model is None:
        raise NotFound(f"There is no model {model_id} here. GET /v1/models lists them.")
    return model


def list_models(
    session: Session, workspace_id: UUID, *, name: str | None, limit: int, cursor: str | None
) -> Page[Model]:
    query = select(Model).where(Model.workspace_id == workspace_id)
    if name is not None:
        query = query.where(Model.name == name)
    return paginate(session, query, Model.id, limit=limit, cursor=cursor)


def delete(session: Session, model: Model) -> None:
    """Forget the model; the garbage collector frees its artefact."""
    session.delete(model)
    session.flush()


def referenced_blobs(session: Session) -> Sequence[str]:
    """The SHA-256 of every artefact."""
    return session.scalars(select(Model.artefact_sha256)).all()
