"""Models: recorded with what made them, found in their workspace alone, deleted."""

import pytest
from sqlalchemy.exc import IntegrityError

from app.core.database import Database
from app.core.errors import NotFound
from app.core.ids import new_id
from app.datasets import service as datasets
from app.registry import service as registry
from app.registry.schemas import ModelOut
from app.storage import Blob
from tests.support.factories import TRAINED, model, ready_dataset, sha, training, workspace


def test_a_model_knows_where_it_comes_from(database: Database) -> None:
    with database.writing() as session:
        job = training(session, model_name="pets, second try")
        made = registry.record(session, job, Blob(sha("weights"), 3 * 2**31), TRAINED)
    with database.reading() as session:
        found = registry.get(session, job.workspace_id, made.id)
        view = ModelOut.model_validate(found)
    assert (view.job_id, view.dataset_version_id) == (job.id, job.dataset_version_id)
    assert (view.name, view.backbone) == ("pets, second try", "resnet18-tiny64")
    assert (view.artefact_sha256, view.artefact_size) == (sha("weights"), 3 * 2**31)
    assert {"classes": view.classes, "preprocessing": view.preprocessing, "metrics": view.metrics} == TRAINED
    assert view.created_at.tzinfo is not None


def test_a_job_makes_one_model(database: Database) -> None:
    with database.writing() as session:
        job = training(session)
        registry.record(session, job, Blob(sha("a"), 1), TRAINED)
        with pytest.raises(IntegrityError), session.begin_nested():
            registry.record(session, job, Blob(sha("b"), 1), TRAINED)


def test_a_model_of_another_workspace_is_not_there(database: Database) -> None:
    with database.writing() as session:
        theirs = workspace(session, "theirs").id
        ours = model(session)
        for workspace_id, model_id in ((theirs, ours.id), (ours.workspace_id, new_id())):
            with pytest.raises(NotFound, match=str(model_id)):
                registry.get(session, workspace_id, model_id)
        assert registry.list_models(session, theirs, name=None, limit=9, cursor=None).items == []


def test_models_are_listed_newest_first_and_by_name(database: Database) -> None:
    with database.writing() as session:
        dataset = ready_dataset(session)
        made = [model(session, training(session, dataset, model_name=name)) for name in ("a", "b", "a")]
        mine = dataset.workspace_id
        every = registry.list_models(session, mine, name=None, limit=2, cursor=None)
        rest = registry.list_models(session, mine, name=None, limit=2, cursor=every.next_cursor)
        assert [*every.items, *rest.items] == made[::-1]
        assert registry.list_models(session, mine, name="a", limit=9, cursor=None).items == [made[2], made[0]]
        assert registry.list_models(session, mine, name="none", limit=9, cursor=None).items == []


def test_a_deleted_model_lets_go_of_its_artefact(database: Database) -> None:
    with database.writing() as session:
        first = model(session, artefact="first")
        second = model(session, artefact="second")
        assert set(registry.referenced_blobs(session)) == {sha("first"), sha("second")}
        registry.delete(session, first)
        assert list(registry.referenced_blobs(session)) == [sha("second")]
        with pytest.raises(NotFound):
            registry.get(session, second.workspace_id, first.id)


def test_a_model_outlives_its_dataset(database: Database) -> None:
    with database.writing() as session:
        dataset = ready_dataset(session)
        made = model(session, training(session, dataset))
        datasets.delete(session, dataset)
    with database.reading() as session:
        found = registry.get(session, made.workspace_id, made.id)
        assert datasets.get_version(session, found.dataset_version_id).classes == ["ants", "bees"]
