"""Models: record, find, name by aliases, delete."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import InstrumentedAttribute, Session, load_only

from app.core.errors import FieldError, Invalid, NotFound
from app.core.ids import parse_id
from app.core.paging import Page, paginate
from app.jobs import service as jobs
from app.jobs.orm import Job
from app.registry.orm import Model, ModelAlias
from app.storage import Blob
from app.trainings.base_model import Base
from app.vision.images.preprocessing import Preprocessing

Columns = Sequence[InstrumentedAttribute[Any]]


def record(session: Session, job: Job, artefact: Blob, trained: dict[str, Any]) -> Model:
    """Write down the model that `job` made.

    `trained` holds classes, preprocessing and metrics, and as `files` the blobs of its pictures and tables; with a
    target of precision also `decisions`.
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
    return model


def base_of(session: Session, workspace_id: UUID, reference: str, *, lock: bool = False) -> Base:
    """The model that a training asks to start from; see `named`."""
    model = named(session, workspace_id, reference, "base_model", lock=lock)
    spec = model.training.get("spec")
    if spec is None:  # a model from before its training was written down with it
        job = session.get(Job, model.job_id)
        spec = job.spec if job else {}
    head = spec.get("head") or {"hidden": []}
    here = {
        "model_id": str(model.id),
        "name": model.name,
        "job_id": str(model.job_id),
        "dataset_version_id": str(model.dataset_version_id),
        "artefact_sha256": model.artefact_sha256,
    }
    size = Preprocessing.from_dict(model.preprocessing).input_size
    return Base(model.id, model.artefact_sha256, model.backbone, head, size, [here, *model.lineage])


def named(session: Session, workspace_id: UUID, reference: str, field: str, *, lock: bool = False) -> Model:
    """The model that a job is to start from, by id, name or name@alias; raises Invalid for the `field` that asks for
    it if there is none.

    With `lock` it cannot be deleted before the transaction ends, by when the job that needs its bytes says so.
    """
    try:
        model = find(session, workspace_id, reference)
        if lock:
            session.refresh(model, with_for_update=True)
    except (NotFound, InvalidRequestError):
        detail = f"There is no model {reference!r} here. GET /v1/models lists them."
        raise Invalid(detail, code="unknown_model", errors=[FieldError(field, detail, "unknown_model")]) from None
    return model


def get(session: Session, workspace_id: UUID, model_id: UUID, *, columns: Columns = ()) -> Model:
    model = session.scalar(_models(columns).where(Model.id == model_id, Model.workspace_id == workspace_id))
    if model is None:
        raise NotFound(f"There is no model {model_id} here. GET /v1/models lists them.")
    return model


def find(session: Session, workspace_id: UUID, reference: str, *, columns: Columns = ()) -> Model:
    """The model that `reference` means: an id, `name@alias`, or a name (of several models the newest).

    With `columns` no more than these are read: a model's metrics and training are long.
    """
    if (model_id := parse_id(reference)) is not None:
        return get(session, workspace_id, model_id, columns=columns)
    name, at, alias = reference.rpartition("@")
    if at:
        aliased = _models(columns).join(ModelAlias, ModelAlias.model_id == Model.id).where(
            ModelAlias.workspace_id == workspace_id, ModelAlias.name == name, ModelAlias.alias == alias
        )  # fmt: skip
        if (model := session.scalar(aliased)) is not None:
            return model
    named = _models(columns).where(Model.workspace_id == workspace_id, Model.name == reference)
    model = session.scalar(named.order_by(Model.id.desc()).limit(1))
    if model is None:
        raise NotFound(
            f"There is no model {reference!r} here. GET /v1/models lists them; name@alias needs the alias to be set."
        )
    return model


def _models(columns: Columns) -> Select[Model]:
    query = select(Model)
    return query.options(load_only(*columns)) if columns else query


def set_alias(session: Session, workspace_id: UUID, name: str, alias: str, reference: str) -> ModelAlias:
    """Let `name@alias` mean that model, whatever it meant before. Raises `Invalid` for a model of another name."""
    try:
        model = find(session, workspace_id, reference)
    except NotFound as error:
        raise Invalid(error.detail, code="unknown_model", errors=[FieldError("model", error.detail)]) from None
    if model.name != name:
        detail = f"Model {model.id} is named {model.name!r}, not {name!r}; an alias stays within one name."
        raise Invalid(detail, code="other_name", errors=[FieldError("model", detail, "other_name")])
    found = session.merge(ModelAlias(workspace_id=workspace_id, name=name, alias=alias, model_id=model.id))
    session.flush()
    return found


def aliases(session: Session, workspace_id: UUID, name: str) -> Sequence[ModelAlias]:
    """Those of a name, in alphabetical order."""
    query = select(ModelAlias).where(ModelAlias.workspace_id == workspace_id, ModelAlias.name == name)
    return session.scalars(query.order_by(ModelAlias.alias)).all()


def delete_alias(session: Session, workspace_id: UUID, name: str, alias: str) -> None:
    found = session.get(ModelAlias, (workspace_id, name, alias))
    if found is None:
        raise NotFound(f"There is no alias {name}@{alias} here. GET /v1/models/{name}/aliases lists them.")
    session.delete(found)
    session.flush()


def pinned(session: Session) -> Sequence[Model]:
    """The models of every workspace that are to stay loaded, newest first."""
    return session.scalars(select(Model).where(Model.pinned).order_by(Model.id.desc())).all()


def list_models(
    session: Session, workspace_id: UUID, *, name: str | None, limit: int, cursor: str | None
) -> Page[Model]:
    query = select(Model).where(Model.workspace_id == workspace_id)
    if name is not None:
        query = query.where(Model.name == name)
    return paginate(session, query, Model.id, limit=limit, cursor=cursor)


def find_file(model: Model, name: str) -> Blob:
    """The blob of one of the model's pictures or tables; raises NotFound, naming those there are."""
    if name not in model.files:
        there = f"It has {', '.join(sorted(model.files))}." if model.files else "It is older than such files."
        raise NotFound(f"Model {model.id} has no {name!r}. {there}", code="no_such_file")
    return Blob(**model.files[name])


def delete(session: Session, model: Model) -> None:
    """Forget the model and the aliases that mean it; the garbage collector frees its artefact, pictures and tables."""
    session.delete(model)
    session.flush()


def trained_on(session: Session, workspace_id: UUID, version_ids: Sequence[UUID]) -> Sequence[Model]:
    """The models that were trained on any of these dataset versions, oldest first."""
    query = select(Model).where(Model.workspace_id == workspace_id, Model.dataset_version_id.in_(version_ids))
    return session.scalars(query.order_by(Model.id)).all()


def referenced_blobs(session: Session) -> Sequence[str]:
    """The SHA-256 of every artefact, picture and table."""
    found: list[str] = []
    for artefact, files in session.execute(select(Model.artefact_sha256, Model.files)):
        found += [artefact, *(blob["sha256"] for blob in files.values())]
    return found
