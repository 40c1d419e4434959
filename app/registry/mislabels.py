"""Find images whose label is probably wrong, by confident learning on images that the model was not trained on."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import images as dataset_images
from app.datasets.manifest import read_manifest
from app.datasets.orm import Dataset, DatasetImage, DatasetVersion
from app.datasets.report import LISTED
from app.datasets.schemas import Finding, Severity
from app.registry import service as registry
from app.registry.orm import Model
from app.storage import BlobStore

_TABLES = ("evaluations-val.jsonl", "evaluations-test.jsonl")


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image with its `given` label, a `suggested` class, and how much more probable (`margin`) the latter is."""

    image: str
    given: str
    suggested: str
    margin: float


def suspects(rows: Iterable[Mapping[str, Any]]) -> list[Suspect]:
    """Return the images off the diagonal of the confident joint, by falling margin.

    `rows` are `image_rows` of images that the model was not trained on. A class's threshold is the mean probability
    that the model gives it on the images with this label. An image counts for the most probable of the classes whose
    threshold it reaches, and is suspect if that is not its label.

    Source: Northcutt et al. 2021, arXiv:1911.00068.
    """
    rows = list(rows)
    confidences: dict[str, list[float]] = {}
    for row in rows:
        confidences.setdefault(row["true"], []).append(row["true_probability"])
    thresholds = {label: sum(found) / len(found) for label, found in confidences.items()}
    found = []
    for row in rows:
        reached = [one for one in row["top"] if one["probability"] >= thresholds.get(one["class"], float("inf"))]
        best = max(reached, key=lambda one: one["probability"], default=None)
        if best is not None and best["class"] != row["true"]:
            margin = best["probability"] - row["true_probability"]
            found.append(Suspect(row["image"], row["true"], best["class"], margin))
    return sorted(found, key=lambda one: -one.margin)


def likely_mislabels(
    session: Session, store: BlobStore, workspace_id: UUID, dataset: Dataset, images: Sequence[DatasetImage]
) -> Iterator[Finding]:
    """Yield a finding if the newest model that was trained on the dataset doubts the labels of some `images`.

    Only the model's held-out images are considered, and only those whose label has not changed since.
    """
    versions = [version.id for version in dataset_images.list_versions(session, dataset)]
    models = [model for model in registry.trained_on(session, workspace_id, versions) if _TABLES[0] in model.files]
    if not models:
        return
    model = models[-1]
    seen = _seen_by_ancestors(session, store, model)
    now = {image.sha256: image for image in images}
    doubted = [
        one
        for one in suspects(row for row in _held_out(store, model) if row["image"] not in seen)
        if one.image in now and now[one.image].label == one.given
    ]
    if doubted:
        first = doubted[0]
        yield Finding(
            code="likely_mislabels",
            severity=Severity.warning,
            message=f"{len(doubted)} images look mislabelled to the model {model.name} ({model.id}), for instance "
            f"{now[first.image].name}, which is {first.given} and looks like {first.suggested}.",
            remedy="Look at each image, and PATCH its label or DELETE the image if it is wrong. The model checks only "
            "its validation and test images; to check others, move images between the splits and train again.",
            count=len(doubted),
            images=[one.image for one in doubted[:LISTED]],
            model_id=model.id,
        )


def _held_out(store: BlobStore, model: Model) -> Iterator[Mapping[str, Any]]:
    for name in _TABLES:
        if name in model.files:
            with store.open(model.files[name]["sha256"]) as file:
                yield from map(json.loads, file)


def _seen_by_ancestors(session: Session, store: BlobStore, model: Model) -> set[str]:
    """Return the SHA-256 of all training images of the model's ancestors, which it inherits knowledge of."""
    seen: set[str] = set()
    for ancestor in model.lineage:
        version = session.get_one(DatasetVersion, UUID(ancestor["dataset_version_id"]))
        manifest = read_manifest(store.read(version.manifest_sha256))
        seen |= {item.sha256 for item in manifest.items if item.split == "train"}
    return seen
