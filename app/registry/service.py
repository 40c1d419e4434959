"""Record, find, list and delete models, and manage their aliases."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from app.core import outbox
from app.core.errors import FieldError, Invalid, NotFound
from app.core.ids import parse_id
from app.core.paging import Page, paginate
from app.jobs import service as jobs
from app.jobs.orm import Job
from app.registry.orm import Model, ModelAlias
from app.storage import Blob

Columns = Sequence[InstrumentedAttribute[Any]]


def record(session: Session, job: Job, artefact: Blob, trained: dict[str, Any]) -> Model:
    """Write and return the row of the model that `job` trained.

    `trained` holds classes, preprocessing and metrics, and as `files` the blobs of pictures and tables; with a target
    precision also `decisions`.
    """
    assert job.dataset_version_id is not None
    lineage = job.spec.get("lineage", [])
    model = Model(
        workspace_id=job.workspace_id,
        parent_id=UUID(lineage[0]["model_id"]) if lineage else None,
        lineage=lineage,
        job_id=job.id,
        dataset_version_id=job.dataset_version_id,
        name=job.spec["model_name"],
        backbone=job.spec["backbone"],
        classes=trained["classes"],
        preprocessing=trained["preprocessing"],
        metrics=trained["metrics"],
        training={
            "spec": job.spec,
            "best_epoch": trained.get("best_epoch"),
            "epochs": [row.metrics for row in jobs.metrics(session, job.id)],
        },
        files=trained.get("files", {}),
        decisions=trained.get("decisions"),
        artefact_sha256=artefact.sha256,
        artefact_size=artefact.size,
    )
    session.add(model)
    session.flush()
    _tell(session, model, "created", job_id=str(job.id))
    return model


def _tell(session: Session, model: Model, what: str, **body: Any) -> None:
    outbox.tell(session, model.workspace_id, f"model.{what}", model.id, {"name": model.name, **body})


def find_for_job(session: Session, workspace_id: UUID, reference: str, field: str, *, lock: bool = False) -> Model:
    """Return the model that a job's spec names by id, name or name@alias. Raises Invalid for `field` if there is none.

    With `lock` the model cannot be deleted before the transaction ends; from then on the job keeps its bytes.
    """
    try:
        model = find(session, workspace_id, reference)
        if lock:
            session.refresh(model, with_for_update=True)
    except (NotFound, InvalidRequestError):
        detail = f"There is no model {reference!r} in this workspace. GET /v1/models lists models."
        raise Invalid(detail, code="unknown_model", errors=[FieldError(field, detail, "unknown_model")]) from None
    return model


def get(session: Session, workspace_id: UUID, model_id: UUID, *, columns: Columns = ()) -> Model:
    model = session.scalar(_models(columns).where(Model.id == model_id, Model.workspace_id == workspace_id))
    if model is None:
        raise NotFound(f"There is no model {model_id} in this workspace. GET /v1/models lists models.")
    return model


def find(session: Session, workspace_id: UUID, reference: str, *, columns: Columns = ()) -> Model:
    """Return the model that `reference` means: an id, `name@alias`, or a name (its newest model). Raises NotFound.

    With `columns` only these are read, because a model's metrics and training are long.
    """
    if (model_id := parse_id(reference)) is not None:
        return get(session, workspace_id, model_id, columns=columns)
    name, at, alias = reference.rpartition("@")
    if at:
        aliased = _models(columns).join(ModelAlias, ModelAlias.model_id == Model.id)
        aliased = aliased.where(ModelAlias.workspace_id == workspace_id)
        aliased = aliased.where(ModelAlias.name == name, ModelAlias.alias == alias)
        if (model := session.scalar(aliased)) is not None:
            return model
    named = _models(columns).where(Model.workspace_id == workspace_id, Model.name == reference)
    model = session.scalar(named.order_by(Model.id.desc()).limit(1))
    if model is None:
        raise NotFound(
            f"There is no model {reference!r} in this workspace. GET /v1/models lists models, and "
            "GET /v1/models/{name}/aliases the aliases of a name."
        )
    return model


def _models(columns: Columns) -> Select[Model]:
    query = select(Model)
    return query.options(load_only(*columns)) if columns else query


def set_alias(session: Session, workspace_id: UUID, name: str, alias: str, reference: str) -> ModelAlias:
    """Make `name@alias` mean this model, and return the alias. Raises `Invalid` for a model of another name."""
    try:
        model = find(session, workspace_id, reference)
    except NotFound as error:
        raise Invalid(error.detail, code="unknown_model", errors=[FieldError("model", error.detail)]) from None
    if model.name != name:
        detail = f"Model {model.id} has the name {model.name!r}, not {name!r}. Choose a model with the alias's name."
        raise Invalid(detail, code="other_name", errors=[FieldError("model", detail, "other_name")])
    found = session.merge(ModelAlias(workspace_id=workspace_id, name=name, alias=alias, model_id=model.id))
    session.flush()
    _tell(session, model, "aliased", alias=alias)
    return found


def aliases(session: Session, workspace_id: UUID, name: str) -> Sequence[ModelAlias]:
    """Return the aliases of a name, in alphabetical order."""
    query = select(ModelAlias).where(ModelAlias.workspace_id == workspace_id, ModelAlias.name == name)
    return session.scalars(query.order_by(ModelAlias.alias)).all()


def delete_alias(session: Session, workspace_id: UUID, name: str, alias: str) -> None:
    found = session.get(ModelAlias, (workspace_id, name, alias))
    if found is None:
        raise NotFound(f"There is no alias {name}@{alias}. GET /v1/models/{name}/aliases lists the aliases of {name}.")
    session.delete(found)
    session.flush()
    outbox.tell(session, workspace_id, "model.unaliased", found.model_id, {"name": name, "alias": alias})


def pinned(session: Session) -> Sequence[Model]:
    """Return the pinned models of all workspaces, newest first."""
    return session.scalars(select(Model).where(Model.pinned).order_by(Model.id.desc())).all()


def list_models(
    session: Session, workspace_id: UUID, *, name: str | None, limit: int, cursor: str | None
) -> Page[Model]:
    query = select(Model).where(Model.workspace_id == workspace_id)
    if name is not None:
        query = query.where(Model.name == name)
    return paginate(session, query, Model.id, limit=limit, cursor=cursor)


def find_file(model: Model, name: str) -> Blob:
    """Return the blob of one of the model's pictures or tables. Raises NotFound, which lists the files that exist."""
    if name not in model.files:
        existing = f"It has {', '.join(sorted(model.files))}." if model.files else "It is older than such files."
        raise NotFound(f"Model {model.id} has no file {name!r}. {existing}", code="no_such_file")
    return Blob(**model.files[name])


def delete(session: Session, model: Model) -> None:
    """Delete the model and its aliases; the garbage collector then frees its artefact, pictures and tables."""
    session.delete(model)
    session.flush()
    _tell(session, model, "deleted")


def trained_on(session: Session, workspace_id: UUID, version_ids: Sequence[UUID]) -> Sequence[Model]:
    """Return the models that were trained on any of these dataset versions, oldest first."""
    query = select(Model).where(Model.workspace_id == workspace_id, Model.dataset_version_id.in_(version_ids))
    return session.scalars(query.order_by(Model.id)).all()


def referenced_blobs(session: Session) -> Sequence[str]:
    """Return the SHA-256 of every artefact, picture and table."""
    found: list[str] = []
    for artefact, files in session.execute(select(Model.artefact_sha256, Model.files)):
        found += [artefact, *(blob["sha256"] for blob in files.values())]
    return found
