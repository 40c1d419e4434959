"""Datasets and their versions are kept here: create, find, fill with what ingestion found, delete."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, insert, or_, select, union
from sqlalchemy import delete as sql_delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import outbox
from app.core.clock import DatabaseTime
from app.core.errors import Conflict, FieldError, NotFound, TooLarge
from app.core.ids import new_id, parse_id
from app.core.paging import Page, paginate
from app.datasets.ingestion import Ingested
from app.datasets.orm import Dataset, DatasetImage, DatasetVersion, ResumableUpload, VersionImage
from app.datasets.states import DatasetState
from app.storage import Blob

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload is an archive that has arrived in the blob store."""

    archive: Blob
    format: str
    filename: str | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "bytes": self.archive.size,
            "sha256": self.archive.sha256,
            "format": self.format,
            "filename": self.filename,
        }


def create(session: Session, workspace_id: UUID, name: str, upload: Upload) -> Dataset:
    """Create and return a dataset in state `processing`; the caller submits its ingestion in the same transaction."""
    dataset = Dataset(
        workspace_id=workspace_id, name=name, upload=upload.as_dict(), archive_sha256=upload.archive.sha256
    )
    try:
        with session.begin_nested():
            session.add(dataset)
            session.flush()
    except IntegrityError:
        raise name_taken(name) from None
    tell(session, dataset, "created")
    return dataset


def tell(session: Session, dataset: Dataset, what: str, **body: Any) -> None:
    """Tell the workspace's listeners what happened to a dataset, such as `deleted`."""
    outbox.tell(session, dataset.workspace_id, f"dataset.{what}", dataset.id, {"name": dataset.name, **body})


def name_taken(name: str) -> Conflict:
    return Conflict(
        f"There is a dataset named {name!r} already.",
        code="name_taken",
        errors=[FieldError("name", f"Choose another name than {name!r}, or delete that dataset first.", "name_taken")],
    )


def is_name_taken(session: Session, workspace_id: UUID, name: str) -> bool:
    query = _visible(workspace_id).where(Dataset.name == name, Dataset.state != DatasetState.failed)
    return session.scalar(query) is not None


def get(session: Session, workspace_id: UUID, reference: str | UUID, *, lock: bool = False) -> Dataset:
    """Return the dataset with that id or, failing that, that name. `lock` holds the row until the transaction ends."""
    dataset_id = reference if isinstance(reference, UUID) else parse_id(reference)
    dataset: Dataset | None = None
    if dataset_id is not None:
        dataset = session.scalar(_locked_if(lock, _visible(workspace_id).where(Dataset.id == dataset_id)))
    if dataset is None and isinstance(reference, str):
        # A failed upload gives its name back, so the newest of several is meant.
        named = _visible(workspace_id).where(Dataset.name == reference).order_by(Dataset.id.desc()).limit(1)
        dataset = session.scalar(_locked_if(lock, named))
    if dataset is None:
        raise NotFound(f"There is no dataset {str(reference)!r} here. GET /v1/datasets lists them.")
    return dataset


def stored_bytes(session: Session, workspace_id: UUID) -> int:
    """Return how many bytes the images of the workspace's datasets have; one that is in several counts each time."""
    query = select(func.sum(DatasetImage.size)).join(Dataset, Dataset.id == DatasetImage.dataset_id)
    return int(session.scalar(query.where(Dataset.workspace_id == workspace_id)) or 0)


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota says how many bytes a workspace holds, and how many it may."""

    held: int
    limit: int

    def check(self, more: int) -> None:
        """Raise `TooLarge` (`workspace_full`) if `more` bytes would bring the workspace over its limit."""
        if self.held + more > self.limit:
            raise TooLarge(
                f"The images and unfinished uploads of this workspace have {self.held} bytes, and {more} more would "
                f"be over its {self.limit}. Delete datasets that are no longer needed, or raise "
                "GRAFT_MAX_WORKSPACE_BYTES.",
                code="workspace_full",
            )


def quota(session: Session, workspace_id: UUID, limit: int, besides: UUID | None = None) -> Quota:
    """Return what there is now; resumable uploads that are under way count whole, that with the id `besides`
    excepted."""
    unfinished = select(func.sum(ResumableUpload.length)).where(
        ResumableUpload.workspace_id == workspace_id,
        ResumableUpload.dataset_id.is_(None),
        ResumableUpload.expires_at > DatabaseTime(),
    )
    if besides is not None:
        unfinished = unfinished.where(ResumableUpload.id != besides)
    return Quota(stored_bytes(session, workspace_id) + int(session.scalar(unfinished) or 0), limit)


def list_datasets(
    session: Session, workspace_id: UUID, *, name: str | None, limit: int, cursor: str | None
) -> Page[Dataset]:
    query = _visible(workspace_id)
    if name is not None:
        query = query.where(Dataset.name == name)
    return paginate(session, query, Dataset.id, limit=limit, cursor=cursor)


def latest_versions(session: Session, dataset_ids: Sequence[UUID]) -> dict[UUID, DatasetVersion]:
    """Return the newest version of each dataset that has one."""
    newest = (
        select(DatasetVersion.dataset_id, func.max(DatasetVersion.number).label("number"))
        .where(DatasetVersion.dataset_id.in_(dataset_ids))
        .group_by(DatasetVersion.dataset_id)
        .subquery()
    )
    query = select(DatasetVersion).join(
        newest, (DatasetVersion.dataset_id == newest.c.dataset_id) & (DatasetVersion.number == newest.c.number)
    )
    return {version.dataset_id: version for version in session.scalars(query)}


def get_version(session: Session, version_id: UUID) -> DatasetVersion:
    return session.get_one(DatasetVersion, version_id)


def fill(session: Session, dataset_id: UUID, ingested: Ingested) -> DatasetVersion:
    """Give the dataset the images that ingestion found, as its version 1; the dataset is then `ready`."""
    dataset = session.get_one(Dataset, dataset_id)
    rows = [{"id": new_id(), "dataset_id": dataset_id, **image} for image in ingested.images]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        session.execute(insert(DatasetImage), rows[start : start + _ROWS_AT_ONCE])
    version = DatasetVersion(
        dataset_id=dataset_id,
        number=1,
        manifest_sha256=ingested.manifest_sha256,
        classes=ingested.classes,
        counts=ingested.counts,
    )
    record_version(session, dataset, version, [image["sha256"] for image in ingested.images])
    dataset.state = DatasetState.ready
    dataset.report = ingested.report
    dataset.archive_sha256 = None
    session.flush()
    tell(session, dataset, "ready", images=len(ingested.images))
    return version


def record_version(session: Session, dataset: Dataset, version: DatasetVersion, images: Sequence[str]) -> None:
    """Keep a new version, and which images (by SHA-256) it holds."""
    session.add(version)
    session.flush()
    rows = [{"version_id": version.id, "sha256": sha256} for sha256 in images]
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        session.execute(insert(VersionImage), rows[start : start + _ROWS_AT_ONCE])
    tell(session, dataset, "version", version_id=str(version.id), number=version.number, images=len(images))


def fail(session: Session, dataset_id: UUID, failure: dict[str, Any], report: dict[str, Any] | None = None) -> None:
    """End an ingestion that found nothing to train on."""
    dataset = session.get_one(Dataset, dataset_id)
    dataset.state = DatasetState.failed
    dataset.failure = failure
    dataset.report = report
    dataset.archive_sha256 = None
    session.flush()
    tell(session, dataset, "failed", failure=failure)


def delete(session: Session, dataset: Dataset) -> None:
    """Hide the dataset and delete the rows of its images; the garbage collector frees blobs that nothing else holds.

    Versions stay as rows: models name the one they were trained on.
    """
    session.execute(sql_delete(DatasetImage).where(DatasetImage.dataset_id == dataset.id))
    dataset.archive_sha256 = None
    dataset.deleted_at = DatabaseTime()
    session.flush()
    tell(session, dataset, "deleted")


def find_images(session: Session, workspace_id: UUID, references: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of the stored bytes by reference, an image's id or that hash; what is not there is left
    out."""
    ids = {one: parsed for one in references if (parsed := parse_id(one)) is not None}
    query = (
        select(DatasetImage.id, DatasetImage.sha256)
        .join(Dataset, Dataset.id == DatasetImage.dataset_id)
        .where(Dataset.workspace_id == workspace_id, Dataset.deleted_at.is_(None))
        .where(or_(DatasetImage.id.in_(ids.values()), DatasetImage.sha256.in_(set(references) - ids.keys())))
    )
    found = {key: sha256 for image_id, sha256 in session.execute(query) for key in (str(image_id), sha256)}
    return {one: found[key] for one in references if (key := str(ids.get(one, one))) in found}


def unknown_image(reference: str) -> NotFound:
    """Return the error of an image that `find_images` did not find."""
    detail = f"There is no image {reference!r} in the datasets here. Name it by its id or its SHA-256."
    return NotFound(detail, code="unknown_image")


def referenced_blobs(session: Session) -> Iterator[str]:
    """Return the SHA-256 of every blob that a dataset needs."""
    manifests = select(DatasetVersion.manifest_sha256)
    archives = select(Dataset.archive_sha256).where(Dataset.archive_sha256.is_not(None))
    frozen = (
        select(VersionImage.sha256)
        .join(DatasetVersion, DatasetVersion.id == VersionImage.version_id)
        .join(Dataset, Dataset.id == DatasetVersion.dataset_id)
        .where(Dataset.deleted_at.is_(None))
    )
    yield from session.scalars(union(select(DatasetImage.sha256), frozen, manifests, archives))


def _locked_if(lock: bool, query: Select[Dataset]) -> Select[Dataset]:
    # What this session read before it had the lock may be out of date.
    return query.with_for_update().execution_options(populate_existing=True) if lock else query


def _visible(workspace_id: UUID) -> Select[Dataset]:
    return select(Dataset).where(Dataset.workspace_id == workspace_id, Dataset.deleted_at.is_(None))
