"""A backup of a service in use is whole, and an empty service becomes the same one by it, on either database."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from app.core.database import Database
from app.core.errors import Conflict, Invalid
from app.core.settings import Settings
from app.operations.backup import back_up
from app.operations.check import check
from app.operations.restore import restore
from app.operations.rows import dump, tables
from app.storage import FilesystemStore
from tests.support.images import folder_zip
from tests.support.stages import Stage, Workspace

Rows = dict[str, list[bytes]]


@pytest.fixture
def stage(settings: Settings, database: Database, tmp_path: Path) -> Stage:
    """A service with a dataset that is ready, one that waits to be read, and a training that waits."""
    stage = Stage(settings, database, FilesystemStore(tmp_path / "blobs"))
    workspace = stage.workspace("team")
    stage.dataset(workspace, "pets", folder_zip({"ants": 3, "bees": 3}))
    stage.job(workspace, "pets")
    stage.upload(workspace, "later")
    return stage


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Database, FilesystemStore]]:
    """Another service, which has nothing."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    else:
        make: Callable[[], str] = request.getfixturevalue("another_postgresql_url")
        database = Database(make())
    yield database, FilesystemStore(tmp_path / "empty-blobs")
    database.close()


def rows_of(database: Database) -> Rows:
    with database.writing() as session:  # a cursor of PostgreSQL's needs a transaction
        return {table.name: list(dump(session.connection(), table)) for table in tables()}


def blobs_of(store: FilesystemStore) -> set[str]:
    return {blob.sha256 for blob in store.list()}


def test_an_empty_service_becomes_the_same_one(
    stage: Stage, empty: tuple[Database, FilesystemStore], tmp_path: Path
) -> None:
    nobodys = stage.store.put_bytes(b"nobody refers to this").sha256
    made = back_up(stage.database, stage.store, tmp_path / "backup")
    assert made.rows["datasets"] == 2
    database, store = empty
    assert restore(database, store, tmp_path / "backup") == made.rows
    assert rows_of(database) == rows_of(stage.database)
    assert len(blobs_of(store)) == made.blobs
    assert nobodys not in blobs_of(store)
    assert check(database, store, hashes=True).sound
    # It goes on: the upload that waited is read, and a new workspace is made beside the old one.
    restored = Stage(stage.settings, database, store)
    restored.read_uploads()
    restored.workspace("another")
    assert len(rows_of(database)["workspaces"]) == 2


def test_a_second_backup_adds_what_is_new_and_replaces_the_rows(stage: Stage, tmp_path: Path) -> None:
    first = back_up(stage.database, stage.store, tmp_path / "backup")
    unchanged = back_up(stage.database, stage.store, tmp_path / "backup")
    assert (unchanged.copied, unchanged.blobs) == (0, first.blobs)
    stage.read_uploads()
    second = back_up(stage.database, stage.store, tmp_path / "backup")
    assert second.copied > 0
    assert len(blobs_of(FilesystemStore(tmp_path / "backup/blobs"))) == second.blobs
    assert sorted(path.name for path in (tmp_path / "backup").iterdir()) == ["backup.json", "blobs", "rows"]
    assert json.loads((tmp_path / "backup/backup.json").read_text())["rows"] == second.rows


def test_what_is_written_while_it_runs_is_not_in_it(stage: Stage, tmp_path: Path) -> None:
    """Rows of one moment: nothing of what came later, and writers do not wait."""
    seen: list[UUID] = []

    def meanwhile(what: str) -> None:
        if what.startswith("copying blobs") and not seen:
            team = stage.workspace("later")
            seen.append(stage.upload(Workspace(team.id, {}), "meanwhile", folder_zip({"x": 2, "y": 2})))

    made = back_up(stage.database, stage.store, tmp_path / "backup", meanwhile)
    assert seen
    assert made.rows["datasets"] == 2


def test_a_missing_blob_is_said_and_the_backup_before_stays(stage: Stage, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    before = back_up(stage.database, stage.store, folder)
    archive = folder_zip({"a": 2, "b": 2})
    stage.upload(stage.workspace("another"), "lost", archive)
    lost = hashlib.sha256(archive).hexdigest()
    stage.store.delete(lost)
    with pytest.raises(Conflict, match=rf"1 blobs .*{lost}.*graft check"):
        back_up(stage.database, stage.store, folder)
    assert json.loads((folder / "backup.json").read_text())["made_at"] == before.made_at
    assert check(stage.database, stage.store).missing == [lost]


def test_a_damaged_blob_is_found_by_its_hash(stage: Stage, tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    blob = next(iter(FilesystemStore(root).list()))
    path = next(root.rglob(blob.sha256))
    path.chmod(0o600)
    path.write_bytes(b"x" * blob.size)
    assert check(stage.database, stage.store).sound
    found = check(stage.database, stage.store, hashes=True)
    assert (found.damaged, found.sound) == ([blob.sha256], False)


@pytest.mark.parametrize("harm", ["truncated rows", "a lost line", "a damaged blob", "no document", "another format"])
def test_a_damaged_backup_leaves_the_service_empty(
    stage: Stage, empty: tuple[Database, FilesystemStore], tmp_path: Path, harm: str
) -> None:
    folder, (database, store) = tmp_path / "backup", empty
    back_up(stage.database, stage.store, folder)
    rows, document = folder / "rows/dataset_images.jsonl.zst", folder / "backup.json"
    match harm:
        case "truncated rows":
            rows.write_bytes(rows.read_bytes()[:-20])
        case "a lost line":
            rows.write_bytes((folder / "rows/model_aliases.jsonl.zst").read_bytes())  # a table without rows
        case "a damaged blob":
            blob = next(path for path in (folder / "blobs").rglob("*") if path.is_file())
            blob.chmod(0o600)
            blob.write_bytes(b"damaged")
        case "no document":
            document.unlink()
        case _:
            document.write_text(document.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(Invalid):
        restore(database, store, folder)
    if harm not in ("no document", "another format"):
        assert not any(rows_of(database).values())


def test_a_service_with_data_is_not_overwritten(stage: Stage, tmp_path: Path) -> None:
    back_up(stage.database, stage.store, tmp_path / "backup")
    before = rows_of(stage.database)
    with pytest.raises(Conflict, match="has data already"):
        restore(stage.database, stage.store, tmp_path / "backup")
    assert rows_of(stage.database) == before


def test_a_folder_of_other_things_is_left_alone(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(Invalid, match=r"holds other things \(letter.txt\)"):
        back_up(stage.database, stage.store, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]
