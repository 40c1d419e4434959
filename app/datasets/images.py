"""This module looks at and changes the images of a dataset, and freezes versions of them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import Conflict, FieldError, Invalid, NotFound
from app.core.paging import Page, paginate
from app.datasets import service as datasets
from app.datasets.counts import by_split, count_labels
from app.datasets.formats.label_rows import LabelRow, place
from app.datasets.formats.layout import Skipped, check_counts
from app.datasets.intake.intake import StoredImage
from app.datasets.manifest import ManifestImage, manifest_sha256, write_manifest
from app.datasets.orm import Dataset, DatasetImage, DatasetVersion, VersionImage
from app.datasets.states import DatasetState
from app.vision.data.folder_names import Split


def check_ready(dataset: Dataset) -> Dataset:
    """Return the dataset, if its images can be looked at and changed. Raises `Conflict`."""
    if dataset.state is not DatasetState.ready:
        why = "is still being read; wait for it" if dataset.state is DatasetState.processing else "could not be read"
        raise Conflict(f"The dataset {dataset.name!r} {why}.", code="dataset_not_ready", retry_after=2)
    return dataset


def list_images(
    session: Session, dataset: Dataset, *, label: str | None, split: Split | None, limit: int, cursor: str | None
) -> Page[DatasetImage]:
    query = select(DatasetImage).where(DatasetImage.dataset_id == dataset.id)
    if label is not None:
        query = query.where(DatasetImage.label == label)
    if split is not None:
        query = query.where(DatasetImage.split == split)
    return paginate(session, query, DatasetImage.id, limit=limit, cursor=cursor)


def all_images(session: Session, dataset: Dataset) -> Sequence[DatasetImage]:
    """Return every image of the dataset, oldest first."""
    query = select(DatasetImage).where(DatasetImage.dataset_id == dataset.id)
    return session.scalars(query.order_by(DatasetImage.id)).all()


def get_image(session: Session, dataset: Dataset, sha256: str) -> DatasetImage:
    query = select(DatasetImage).where(DatasetImage.dataset_id == dataset.id, DatasetImage.sha256 == sha256)
    image = session.scalar(query)
    if image is None:
        raise NotFound(
            f"There is no image {sha256} in {dataset.name!r}. GET /v1/datasets/{dataset.id}/images lists them."
        )
    return image


def add_image(session: Session, dataset: Dataset, said: LabelRow, stored: StoredImage) -> DatasetImage | None:
    """Put a checked image, whose blob is in the store, into the dataset. Return None if it is there already, unchanged.

    The caller holds the dataset's lock. Raises `Invalid` for a label or split that cannot be, and `Conflict`
    (`conflicting_labels`) where the same image is there under another label.
    """
    placed = place(said, "train")
    if isinstance(placed, Skipped):
        raise Invalid(f"{placed.reason} {placed.remedy}", code=placed.code)
    query = select(DatasetImage).where(DatasetImage.dataset_id == dataset.id, DatasetImage.sha256 == stored.sha256)
    if (known := session.scalar(query)) is not None:
        if known.label == placed.label:
            return None
        raise Conflict(
            f"The same image is in {dataset.name!r} as {known.label}. PATCH that one, or leave this one out.",
            code="conflicting_labels",
        )
    image = DatasetImage(
        dataset_id=dataset.id,
        sha256=stored.sha256,
        name=said.path,
        label=placed.label,
        split=placed.split,
        width=stored.width,
        height=stored.height,
        size=len(stored.data),
        phash=stored.phash,
        extra=placed.metadata or None,
    )
    session.add(image)
    session.flush()
    return image


def change_image(session: Session, image: DatasetImage, changes: dict[str, Any]) -> None:
    """Give the image another `label`, `split` or `metadata`, whichever are among the changes.

    Raises `Invalid`, with the field that cannot be.
    """
    said = LabelRow(
        image.name,
        "",
        changes.get("label", image.label),
        changes.get("split", image.split),
        changes.get("metadata", image.extra) or {},
        "The change",
    )
    placed = place(said)
    if isinstance(placed, Skipped):
        detail = f"{placed.reason} {placed.remedy}"
        field = {"bad_split": "split", "bad_metadata": "metadata", "metadata_too_large": "metadata"}.get(placed.code)
        raise Invalid(detail, code=placed.code, errors=[FieldError(field or "label", detail, placed.code)])
    image.label, image.extra = placed.label, placed.metadata or None
    image.split = placed.split or image.split
    session.flush()


def remove_image(session: Session, image: DatasetImage) -> None:
    """Take the image out of the dataset. Versions that hold it keep it."""
    session.delete(image)
    session.flush()


def current_manifest(session: Session, dataset: Dataset) -> tuple[bytes, list[DatasetImage]]:
    """Return the manifest of the dataset as it is now, and its images.

    Raises `Invalid` with every reason why nothing can be trained on it (see `layout.check_counts`, and `no_val_split`).
    """
    images = all_images(session, dataset)
    counts = count_labels((image.label, image.split) for image in images)  # type: ignore[misc]
    check_counts(counts)
    if not any("val" in found for found in counts.values()):
        message = "No image is in val. Move some of each class there, with PATCH, so that a model can be validated."
        raise Invalid(message, code="no_val_split", errors=[FieldError("split", message, "no_val_split")])
    items = [ManifestImage(one.sha256, one.label, one.split, metadata=one.extra or {}) for one in images]  # type: ignore[arg-type]
    return write_manifest(items, sorted(counts)), list(images)


def freeze(session: Session, dataset: Dataset, manifest: bytes) -> tuple[DatasetVersion, bool]:
    """Freeze a version of the dataset, whose `manifest` is in the store. Return it, and whether it is new.

    The caller holds the dataset's lock. Where nothing has changed since the newest version, that is the answer.
    Raises `Conflict` where the dataset has changed since the manifest was written.
    """
    now, images = current_manifest(session, dataset)
    if now != manifest:
        raise Conflict(f"{dataset.name!r} was changed meanwhile. Send this again.", code="changed_meanwhile")
    newest = datasets.latest_versions(session, [dataset.id])[dataset.id]
    if newest.manifest_sha256 == manifest_sha256(manifest):
        return newest, False
    counts = count_labels((image.label, image.split) for image in images)  # type: ignore[misc]
    version = DatasetVersion(
        dataset_id=dataset.id,
        number=newest.number + 1,
        manifest_sha256=manifest_sha256(manifest),
        classes=sorted(counts),
        counts=by_split(counts),
    )
    datasets.record_version(session, dataset, version, [image.sha256 for image in images])
    return version, True


def list_versions(session: Session, dataset: Dataset) -> Sequence[DatasetVersion]:
    """Return the versions of the dataset, newest first."""
    query = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id)
    return session.scalars(query.order_by(DatasetVersion.number.desc())).all()


def get_version(session: Session, dataset: Dataset, number: int) -> DatasetVersion:
    query = select(DatasetVersion).where(DatasetVersion.dataset_id == dataset.id, DatasetVersion.number == number)
    version = session.scalar(query)
    if version is None:
        raise NotFound(f"{dataset.name!r} has no version {number}. GET /v1/datasets/{dataset.id}/versions lists them.")
    return version


def versions_with(session: Session, workspace_id: UUID, sha256: str) -> list[tuple[Dataset, DatasetVersion]]:
    """Return the workspace's versions that hold an image, those of deleted datasets too, oldest first."""
    query = (
        select(Dataset, DatasetVersion)
        .join(DatasetVersion, DatasetVersion.dataset_id == Dataset.id)
        .join(VersionImage, VersionImage.version_id == DatasetVersion.id)
        .where(Dataset.workspace_id == workspace_id, VersionImage.sha256 == sha256)
        .order_by(DatasetVersion.id)
    )
    return [(dataset, version) for dataset, version in session.execute(query)]
