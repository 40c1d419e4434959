"""Whose label is doubted, and that nobody is asked about what it has learnt."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import Session

from app.core.database import Database
from app.datasets import service as datasets
from app.datasets.manifest import ManifestImage, manifest_sha256, write_manifest
from app.datasets.orm import DatasetImage, DatasetVersion
from app.registry.mislabels import Suspect, likely_mislabels, suspects
from app.registry.orm import Model
from app.storage import FilesystemStore
from tests.support import factories
from tests.support.factories import sha


def row(image: str, true: str, probability_of_ants: float) -> dict[str, Any]:
    probabilities = {"ants": probability_of_ants, "bees": 1 - probability_of_ants}
    top = [{"class": name, "probability": p} for name, p in sorted(probabilities.items(), key=lambda one: -one[1])]
    return {"image": sha(image), "true": true, "true_probability": probabilities[true], "top": top}


SOUND = [row(f"ant {n}", "ants", 0.9) for n in range(9)] + [row(f"bee {n}", "bees", 0.2) for n in range(9)]


def test_a_class_has_to_be_as_sure_as_it_is_of_its_own() -> None:
    assert suspects([]) == []
    assert suspects(SOUND) == []
    # The thresholds: ants (9 * 0.9 + 0.05 + 0.3) / 11 = 0.77, bees (9 * 0.8 + 0.01) / 10 = 0.72.
    wrong = [row("bee as ant", "ants", 0.05), row("ant as bee", "bees", 0.99), row("unsure", "ants", 0.3)]
    found = suspects([*SOUND, *wrong])
    assert found == [
        Suspect(sha("ant as bee"), "bees", "ants", pytest.approx(0.98)),  # type: ignore[arg-type]
        Suspect(sha("bee as ant"), "ants", "bees", pytest.approx(0.90)),  # type: ignore[arg-type]
    ]


@pytest.fixture
def store(tmp_path: Any) -> FilesystemStore:
    return FilesystemStore(tmp_path / "blobs")


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.writing() as session:
        yield session


def judged(session: Session, store: FilesystemStore) -> tuple[Model, list[DatasetImage]]:
    """A model that doubts two images of val and one of test, and the dataset's images."""
    model = factories.model(session)
    doubted = {"val": ["a", "b"], "test": ["c"]}
    for split, names in doubted.items():
        table = "".join(json.dumps(one) + "\n" for one in [*SOUND, *(row(name, "ants", 0.02) for name in names)])
        blob = store.put_bytes(table.encode())
        model.files = {**model.files, f"evaluations-{split}.jsonl": {"sha256": blob.sha256, "size": blob.size}}
    session.flush()
    images = [
        DatasetImage(sha256=sha(name), name=f"{name}.jpg", label="ants", split=split)
        for split, names in doubted.items()
        for name in names
    ]
    return model, images


def doubts(session: Session, store: FilesystemStore, model: Model, images: list[DatasetImage]) -> Any:
    version = session.get_one(DatasetVersion, model.dataset_version_id)
    dataset = datasets.get(session, model.workspace_id, version.dataset_id)
    return next(likely_mislabels(session, store, model.workspace_id, dataset, images), None)


def test_the_finding_names_the_model_and_the_images_as_they_are_now(session: Session, store: FilesystemStore) -> None:
    model, images = judged(session, store)
    found = doubts(session, store, model, images)
    assert (found.code, found.count, found.model_id) == ("likely_mislabels", 3, model.id)
    assert sorted(found.images) == sorted(sha(name) for name in "abc")
    assert str(model.id) in found.message
    assert "looks like bees" in found.message
    images[0].label = "bees"  # relabelled since: the doubt is settled
    assert sorted(doubts(session, store, model, images[:2]).images) == [sha("b")]
    assert doubts(session, store, model, []) is None
    newer = factories.model(session, artefact="newer")  # with no tables, such as one that is older than they are
    assert newer.files == {}
    assert doubts(session, store, model, images).model_id == model.id


def test_what_an_ancestor_has_learnt_is_not_judged(session: Session, store: FilesystemStore) -> None:
    model, images = judged(session, store)
    items = [ManifestImage(sha("a"), "ants", "train"), ManifestImage(sha("b"), "ants", "val")]
    manifest = write_manifest(items, ["ants", "bees"])
    store.put_bytes(manifest)
    dataset = factories.ready_dataset(session, "before")
    version = datasets.latest_versions(session, [dataset.id])[dataset.id]
    version.manifest_sha256 = manifest_sha256(manifest)
    model.lineage = [{"model_id": str(UUID(int=1)), "dataset_version_id": str(version.id)}]
    session.flush()
    assert sorted(doubts(session, store, model, images).images) == sorted([sha("b"), sha("c")])
