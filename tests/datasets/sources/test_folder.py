"""Files below a folder of this server: found, read, and never anything else than what lies there."""

import os
from pathlib import Path

import pytest

from app.core.errors import Invalid
from app.datasets.intake.intake import RejectedFile
from app.datasets.sources.folder import FolderFiles, allowed_root
from app.datasets.sources.source import Budget, StandingSource


def files(root: Path, *way: str, max_entries: int = 100, max_bytes: int = 1000) -> FolderFiles:
    return FolderFiles(root, way, max_entries, max_bytes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("ants/1.jpg", "ants/2.jpg", "bees/1.jpg", "bees/2.jpg"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "1.jpg").write_bytes(b"secret")
    return tmp_path / "root"


def test_files_are_read_by_their_names(root: Path) -> None:
    found = [(entry.name, read()) for entry, read in files(root).members()]
    assert found == [(name, name.encode()) for name in ("ants/1.jpg", "ants/2.jpg", "bees/1.jpg", "bees/2.jpg")]
    assert [entry.name for entry, _ in files(root, "bees").members()] == ["1.jpg", "2.jpg"]


def test_a_file_or_folder_that_becomes_a_link_after_the_look_leads_nowhere(root: Path) -> None:
    read = {entry.name: read for entry, read in files(root).members()}
    (root / "ants" / "1.jpg").unlink()
    (root / "ants" / "1.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "bees").rename(root / "was")
    (root / "bees").symlink_to(root.parent / "secrets")
    (root / "ants" / "2.jpg").unlink()
    os.mkfifo(root / "ants" / "2.jpg")  # nobody waits for who never comes
    for name, code in (("ants/1.jpg", "unreadable_file"), ("bees/1.jpg", "unreadable_file")):
        with pytest.raises(RejectedFile) as caught:
            read[name]()
        assert caught.value.code == code
    with pytest.raises(RejectedFile) as caught:
        read["ants/2.jpg"]()
    assert caught.value.code == "not_a_plain_file"


def test_a_way_that_is_a_link_is_not_gone(root: Path) -> None:
    (root / "way").symlink_to(root.parent / "secrets")
    for way in (("way",), ("none",), ("ants", "1.jpg")):
        with pytest.raises(Invalid) as caught:
            list(files(root, *way).members())
        assert caught.value.code == "folder_unreadable"


def test_limits_hold(root: Path) -> None:
    with pytest.raises(Invalid) as caught:
        list(files(root, max_entries=5).members())
    assert caught.value.code == "too_many_entries"
    for _, read in files(root, max_bytes=5).members():
        with pytest.raises(RejectedFile) as rejected:
            read()
        assert rejected.value.code == "file_too_large"
    deep = root.joinpath(*"x" * 70)
    deep.mkdir(parents=True)
    (deep / "1.jpg").write_bytes(b"x")
    found = files(root)
    assert len(list(found.members())) == 4
    assert [one.code for one in found.skipped] == ["too_deep"]


def test_a_file_of_labels_counts_as_in_an_archive(root: Path) -> None:
    (root / "labels.csv").write_text("path,label,split\nants/1.jpg,a,train\nbees/1.jpg,b,val\n")
    layout = StandingSource(files(root), Budget(1000)).layout()
    assert {name: (one.label, one.split) for name, one in layout.placements.items()} == {
        "ants/1.jpg": ("a", "train"),
        "bees/1.jpg": ("b", "val"),
    }
    with pytest.raises(Invalid) as caught:
        StandingSource(files(root, max_bytes=10), Budget(1000)).layout()
    assert caught.value.code == "malformed_labels"


def test_a_root_is_compared_by_whole_names(tmp_path: Path) -> None:
    roots = [tmp_path / "a", tmp_path / "b"]
    assert allowed_root(f"{tmp_path}/b/c/d", roots) == (tmp_path / "b", ("c", "d"))
    assert allowed_root(f"{tmp_path}/a/", roots) == (tmp_path / "a", ())
    for folder in (f"{tmp_path}/ab", f"{tmp_path}/a/../c", "a", str(tmp_path)):
        with pytest.raises(Invalid):
            allowed_root(folder, roots)
