"""Datasets as rows: names, states, content, and which blobs they need."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.core.database import Database
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.datasets import images as dataset_images
from app.datasets import service as datasets
from app.datasets.orm import Dataset, DatasetImage, DatasetVersion
from app.datasets.schemas import VersionOut
from app.datasets.states import DatasetState
from tests.support.factories import FAILURE, ingested, new_dataset, ready_dataset, sha, upload, workspace


def test_a_new_dataset_waits_to_be_read(database: Database) -> None:
    with database.writing() as session:
        made = datasets.create(session, workspace(session).id, "pets", upload("bytes"))
    assert (made.state, made.archive_sha256, made.deleted_at) == (DatasetState.processing, sha("bytes"), None)
    assert made.upload == {"bytes": 5, "sha256": sha("bytes"), "format": "zip", "filename": "pets.zip"}
    assert made.created_at.tzinfo is not None


def test_a_name_is_unique_in_its_workspace(database: Database) -> None:
    with database.writing() as session:
        ours, theirs = workspace(session).id, workspace(session, "theirs").id
        new_dataset(session)
        assert datasets.is_name_taken(session, ours, "pets")
        with pytest.raises(Conflict, match="'pets'") as caught:
            new_dataset(session)
        assert not datasets.is_name_taken(session, theirs, "pets")
        assert not datasets.is_name_taken(session, ours, "Pets")
        new_dataset(session, workspace_id=theirs)
        new_dataset(session, "Pets")
    assert (caught.value.code, caught.value.errors[0].field) == ("name_taken", "name")


def test_the_transaction_goes_on_after_a_name_was_taken(database: Database) -> None:
    with database.writing() as session:
        new_dataset(session)
        with pytest.raises(Conflict):
            new_dataset(session)
        new_dataset(session, "others")
    with database.reading() as session:
        assert set(session.scalars(select(Dataset.name))) == {"pets", "others"}


def test_threads_that_race_for_a_name_do_not_both_get_it(database: Database) -> None:
    with database.writing() as session:
        mine = workspace(session).id
    together = threading.Barrier(4)

    def create(_: int) -> UUID | str:
        together.wait()
        try:
            with database.writing() as session:
                return new_dataset(session, workspace_id=mine).id
        except Conflict as error:
            return error.code

    with ThreadPoolExecutor(4) as pool:
        outcome = list(pool.map(create, range(4)))
    assert outcome.count("name_taken") == 3
    with database.reading() as session:
        assert session.scalars(select(Dataset.id)).all() == [one for one in outcome if one != "name_taken"]


@pytest.mark.parametrize("how", ["deleted", "failed", "deleted after failing"])
def test_a_name_is_free_again(database: Database, how: str) -> None:
    with database.writing() as session:
        first = new_dataset(session)
        if "fail" in how:
            datasets.fail(session, first.id, FAILURE)
        if "deleted" in how:
            datasets.delete(session, first)
        assert not datasets.is_name_taken(session, first.workspace_id, "pets")
        second = new_dataset(session)
        assert datasets.get(session, first.workspace_id, "pets") is second
        with pytest.raises(Conflict):
            new_dataset(session)


def test_a_dataset_is_found_by_id_or_by_name(database: Database) -> None:
    with database.writing() as session:
        made = new_dataset(session)
    with database.reading() as session:
        for reference in (made.id, str(made.id), str(made.id).upper(), made.id.hex, "pets"):
            assert datasets.get(session, made.workspace_id, reference).id == made.id


def test_a_name_that_could_be_an_id_is_a_name_too(database: Database) -> None:
    with database.writing() as session:
        other = new_dataset(session)
        name = "deadbeef" * 4
        made = new_dataset(session, name)
        masked = new_dataset(session, str(other.id))
        assert datasets.get(session, made.workspace_id, name) is made
        assert datasets.get(session, made.workspace_id, str(other.id)) is other
        assert datasets.get(session, made.workspace_id, masked.id) is masked


@pytest.mark.parametrize("reference", ["cats", "", "Pets", "0" * 32, new_id()])
def test_what_is_not_there_is_not_found(database: Database, reference: str | UUID) -> None:
    with database.writing() as session:
        made = new_dataset(session)
        with pytest.raises(NotFound, match="GET /v1/datasets"):
            datasets.get(session, made.workspace_id, reference)


def test_another_workspaces_dataset_is_not_found(database: Database) -> None:
    with database.writing() as session:
        theirs = new_dataset(session, workspace_id=workspace(session, "theirs").id)
        ours = workspace(session).id
        for reference in (theirs.id, str(theirs.id), "pets"):
            with pytest.raises(NotFound):
                datasets.get(session, ours, reference)
        assert datasets.list_datasets(session, ours, name=None, limit=9, cursor=None).items == []


def test_lists_are_newest_first_and_hide_the_deleted(database: Database) -> None:
    with database.writing() as session:
        first, second, third = (new_dataset(session, name) for name in "abc")
        datasets.delete(session, second)
        datasets.fail(session, first.id, FAILURE)
        again = new_dataset(session, "a")
        mine = first.workspace_id
        assert datasets.list_datasets(session, mine, name=None, limit=9, cursor=None).items == [again, third, first]
        assert datasets.list_datasets(session, mine, name="a", limit=9, cursor=None).items == [again, first]


def test_filling_makes_it_ready_with_a_first_version(database: Database) -> None:
    found = ingested("1.jpg", "2.jpg", "3.jpg")
    with database.writing() as session:
        dataset = new_dataset(session)
        version = datasets.fill(session, dataset.id, found)
    with database.reading() as session:
        kept = datasets.get(session, dataset.workspace_id, "pets")
        assert (kept.state, kept.report, kept.archive_sha256) == (DatasetState.ready, found.report, None)
        view = VersionOut.model_validate(datasets.latest_versions(session, [dataset.id])[dataset.id])
        images = session.scalars(select(DatasetImage).order_by(DatasetImage.id)).all()
    assert (view.id, view.number, view.sha256, view.classes) == (version.id, 1, sha("manifest"), ["ants", "bees"])
    assert view.counts == found.counts
    assert [(one.name, one.sha256, one.label, one.split) for one in images] == [
        (name, sha(name), "ants", "train") for name in ("1.jpg", "2.jpg", "3.jpg")
    ]
    assert {(one.width, one.height, one.size, one.dataset_id) for one in images} == {(8, 8, 99, dataset.id)}


def test_what_an_upload_says_of_an_image_is_kept(database: Database) -> None:
    found = ingested("1.jpg", "2.jpg")
    found.images[0]["extra"] = {"site": "A", "boxes": [{"label": "ants", "box": [1.5, 2.0, 3.0, 4.0]}]}
    found.images[1]["extra"] = None
    with database.writing() as session:
        datasets.fill(session, new_dataset(session).id, found)
    with database.reading() as session:
        kept = session.scalars(select(DatasetImage).order_by(DatasetImage.name)).all()
    assert [one.extra for one in kept] == [found.images[0]["extra"], None]


def test_many_images_fit(database: Database) -> None:
    with database.writing() as session:
        dataset = new_dataset(session)
        datasets.fill(session, dataset.id, ingested(*(f"{number}.jpg" for number in range(2345))))
        assert session.scalar(select(func.count()).select_from(DatasetImage)) == 2345


def test_the_newest_version_counts(database: Database) -> None:
    with database.writing() as session:
        dataset, other = ready_dataset(session), new_dataset(session, "other")
        newer = DatasetVersion(
            dataset_id=dataset.id, number=2, manifest_sha256=sha("newer"), classes=["ants", "bees"], counts={}
        )
        session.add(newer)
        session.flush()
        assert datasets.latest_versions(session, [dataset.id, other.id]) == {dataset.id: newer}
        assert datasets.latest_versions(session, []) == {}


def test_failing_keeps_the_reason_and_lets_the_archive_go(database: Database) -> None:
    with database.writing() as session:
        dataset = new_dataset(session)
        datasets.fail(session, dataset.id, FAILURE, {"files": 1})
    with database.reading() as session:
        kept = datasets.get(session, dataset.workspace_id, dataset.id)
        assert (kept.state, kept.failure, kept.report) == (DatasetState.failed, FAILURE, {"files": 1})
        assert list(datasets.referenced_blobs(session)) == []


def test_deleting_hides_it_and_keeps_its_version(database: Database) -> None:
    with database.writing() as session:
        dataset = ready_dataset(session)
        version = datasets.latest_versions(session, [dataset.id])[dataset.id]
        datasets.delete(session, dataset)
    with database.reading() as session:
        with pytest.raises(NotFound):
            datasets.get(session, dataset.workspace_id, dataset.id)
        assert session.get_one(Dataset, dataset.id).deleted_at is not None
        assert datasets.get_version(session, version.id).manifest_sha256 == version.manifest_sha256
        assert session.scalar(select(func.count()).select_from(DatasetImage)) == 0


def test_which_blobs_are_needed(database: Database) -> None:
    with database.writing() as session:
        waiting = new_dataset(session, "waiting")
        first = new_dataset(session, "first")
        datasets.fill(session, first.id, ingested("shared.jpg", "own.jpg", manifest="manifest 1"))
        second = new_dataset(session, "second")
        datasets.fill(session, second.id, ingested("shared.jpg", manifest="manifest 2"))
        archive = sha("archive of waiting")
        manifests = {sha("manifest 1"), sha("manifest 2")}
        referenced = list(datasets.referenced_blobs(session))
        assert len(referenced) == len(set(referenced))
        assert set(referenced) == {archive, sha("shared.jpg"), sha("own.jpg"), *manifests}
        datasets.delete(session, first)
        assert set(datasets.referenced_blobs(session)) == {archive, sha("shared.jpg"), *manifests}
        datasets.delete(session, second)
        datasets.delete(session, waiting)
        assert set(datasets.referenced_blobs(session)) == manifests


def test_an_image_that_a_version_holds_is_needed_until_the_dataset_goes(database: Database) -> None:
    with database.writing() as session:
        dataset = ready_dataset(session)
        image = dataset_images.get_image(session, dataset, sha("pets/1.jpg"))
        dataset_images.remove_image(session, image)
    with database.writing() as session:
        dataset = datasets.get(session, dataset.workspace_id, "pets")
        assert dataset_images.list_images(session, dataset, label=None, split=None, limit=9, cursor=None).items != []
        assert sha("pets/1.jpg") in set(datasets.referenced_blobs(session))
        (found,) = dataset_images.versions_with(session, dataset.workspace_id, sha("pets/1.jpg"))
        assert (found[0].id, found[1].number) == (dataset.id, 1)
        assert dataset_images.versions_with(session, workspace(session, "theirs").id, sha("pets/1.jpg")) == []
        datasets.delete(session, dataset)
        assert set(datasets.referenced_blobs(session)) == {sha("manifest of pets")}
        assert len(dataset_images.versions_with(session, dataset.workspace_id, sha("pets/1.jpg"))) == 1


def test_a_version_of_what_changed_meanwhile_is_not_cut(database: Database) -> None:
    found = ingested(*(f"{number}.jpg" for number in range(8)))
    for number, image in enumerate(found.images):
        image |= {"label": ("ants", "bees")[number % 2], "split": "val" if number < 2 else "train"}
    with database.writing() as session:
        dataset = new_dataset(session)
        datasets.fill(session, dataset.id, found)
        dataset_images.change_image(
            session, dataset_images.get_image(session, dataset, sha("2.jpg")), {"label": "bees"}
        )
        manifest, _ = dataset_images.current_manifest(session, dataset)
        dataset_images.change_image(
            session, dataset_images.get_image(session, dataset, sha("3.jpg")), {"label": "ants"}
        )
        with pytest.raises(Conflict) as caught:
            dataset_images.freeze(session, dataset, manifest)
        assert caught.value.code == "changed_meanwhile"
        version, is_new = dataset_images.freeze(session, dataset, dataset_images.current_manifest(session, dataset)[0])
        assert (version.number, is_new) == (2, True)
        assert dataset_images.freeze(session, dataset, dataset_images.current_manifest(session, dataset)[0]) == (
            version,
            False,
        )


def test_a_lock_reads_again_what_this_session_has_seen(postgresql_url: str) -> None:
    postgres = Database(postgresql_url)
    with postgres.writing() as session:
        dataset = new_dataset(session)
    with postgres.writing() as session:
        seen = datasets.get(session, dataset.workspace_id, "pets")
        with postgres.writing() as other:
            datasets.fill(other, dataset.id, ingested("1.jpg"))
        assert datasets.get(session, dataset.workspace_id, "pets", lock=True) is seen
        assert seen.state is DatasetState.ready
    postgres.close()
