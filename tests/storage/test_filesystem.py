"""What only a folder can show: nothing half written, full disks, permissions, moves."""

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core.errors import Unavailable
from app.storage import BlobMissing, FilesystemStore
from app.storage.batches import Batches

DATA = b"x" * 100_000
SHA = hashlib.sha256(DATA).hexdigest()


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow past `size`, as a quota does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that may be read and not written. Root ignores permissions, so as root this becomes nobody."""
    is_root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755 if is_root else 0o555)
        if is_root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if is_root:
                os.seteuid(0)
            folder.chmod(0o755)


def test_the_layout(folder: FilesystemStore) -> None:
    folder.put_bytes(DATA)
    assert files(folder.root) == [f"{SHA[:2]}/{SHA}"]
    assert folder.fetch(SHA, Path("/nowhere")) == folder.root / SHA[:2] / SHA


@pytest.mark.parametrize("how", ["bytes", "many", "copy", "move"])
def test_what_earlier_versions_stored_is_there(folder: FilesystemStore, tmp_path: Path, how: str) -> None:
    """They used one folder more."""
    nested = folder.root / SHA[:2] / SHA[2:4] / SHA
    nested.parent.mkdir(parents=True)
    nested.write_bytes(DATA)
    os.utime(nested, (0, 0))
    (nested.parent / "other").write_bytes(b"no blob")
    source = tmp_path / "source"
    source.write_bytes(DATA)
    now = datetime.now(UTC)
    assert folder.exists(SHA)
    assert folder.read(SHA) == DATA
    assert folder.fetch(SHA, Path("/nowhere")) == nested
    assert [blob.sha256 for blob in folder.list(now)] == [SHA]
    {
        "bytes": lambda: folder.put_bytes(DATA),
        "many": lambda: folder.put_many([DATA]),
        "copy": lambda: folder.put_file(source),
        "move": lambda: folder.put_file(source, move=True),
    }[how]()
    assert source.exists() == (how != "move")
    assert files(folder.root) == [f"{SHA[:2]}/{SHA[2:4]}/{SHA}", f"{SHA[:2]}/{SHA[2:4]}/other"]
    assert not folder.delete(SHA, older_than=now - timedelta(hours=1))
    assert folder.delete(SHA)
    assert not folder.exists(SHA)
    assert not folder.delete(SHA)


def test_a_damaged_blob_of_an_earlier_version_is_mended(folder: FilesystemStore) -> None:
    nested = folder.root / SHA[:2] / SHA[2:4] / SHA
    nested.parent.mkdir(parents=True)
    nested.write_bytes(DATA[:-1])
    folder.put_bytes(DATA)
    assert folder.read(SHA) == DATA
    assert folder.delete(SHA)
    assert not folder.exists(SHA)
    assert files(folder.root) == []


@pytest.mark.parametrize("how", ["bytes", "many", "copy"])
def test_a_write_that_fails_leaves_nothing(folder: FilesystemStore, tmp_path: Path, how: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    put = {
        "bytes": lambda: folder.put_bytes(DATA),
        "many": lambda: folder.put_many([b"small", DATA]),
        "copy": lambda: folder.put_file(source),
    }[how]
    with files_limited_to(50_000), pytest.raises(Unavailable, match="no room") as caught:
        put()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert str(folder.root) in caught.value.detail
    assert files(folder.root) == []
    assert not folder.exists(SHA)
    folder.put_bytes(DATA)
    assert folder.read(SHA) == DATA


def test_check_notices_a_full_disk(folder: FilesystemStore) -> None:
    folder.check()
    assert files(folder.root) == []
    with files_limited_to(4), pytest.raises(Unavailable, match="Free some space"):
        folder.check()


def test_a_killed_writer_leaves_only_a_temporary_file(folder: FilesystemStore) -> None:
    program = f"""
import os, signal
from pathlib import Path
from app.storage.disk import staged_file
with staged_file(Path({str(folder.root / "tmp")!r})) as (path, file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(folder.list()) == []
    assert len(files(folder.root)) == 1
    assert folder.discard_unfinished(datetime.now(UTC) - timedelta(hours=1)) == 0
    assert folder.discard_unfinished(datetime.now(UTC) + timedelta(seconds=5)) == 1
    assert files(folder.root) == []


@pytest.mark.parametrize("below", [".", "blobs"])
def test_a_folder_that_may_not_be_written(locked: Path, below: str) -> None:
    store = FilesystemStore(locked / below)
    for fails in (store.check, lambda: store.put_bytes(DATA)):
        with pytest.raises(Unavailable, match=r"Permission denied.*Give the user with id \d+ read and write"):
            fails()
    assert not store.exists(SHA)


def test_what_cannot_be_looked_at_is_not_called_absent(folder: FilesystemStore) -> None:
    folder.put_bytes(DATA)
    folder.root.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        with pytest.raises(Unavailable, match="Permission denied"):
            folder.exists(SHA)
    finally:
        if is_root:
            os.seteuid(0)
        folder.root.chmod(0o755)
    assert folder.exists(SHA)


def test_a_batch_that_fails_says_so(folder: FilesystemStore) -> None:
    def put() -> None:
        with Batches(folder) as batches:
            for number in range(2000):
                batches.put(bytes(60_000) if number == 700 else b"%d" % number)
            batches.finish()

    with files_limited_to(50_000), pytest.raises(Unavailable, match="no room"):
        put()
    assert not [name for name in files(folder.root) if name.startswith("tmp/")]
    put()
    assert folder.exists(hashlib.sha256(bytes(60_000)).hexdigest())


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_bytes(b"in the way")
    store = FilesystemStore(tmp_path / "blobs")
    for fails in (store.check, lambda: store.put_bytes(DATA)):
        with pytest.raises(Unavailable, match="Check that it is a folder"):
            fails()


def test_a_source_that_is_not_there(folder: FilesystemStore, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="gone"):
        folder.put_file(tmp_path / "gone", move=True)


def test_a_move_renames(folder: FilesystemStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    os.utime(source, (0, 0))
    inode = source.stat().st_ino
    folder.put_file(source, move=True)
    (entry,) = folder.list()
    assert folder.fetch(SHA, tmp_path).stat().st_ino == inode
    assert datetime.now(UTC) - entry.modified < timedelta(minutes=1)


def test_a_move_from_another_file_system_copies(folder: FilesystemStore) -> None:
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == folder.root.parent.stat().st_dev:
        pytest.skip("/dev/shm is not another file system here")
    with tempfile.TemporaryDirectory(dir=shm) as name:
        source = Path(name) / "source"
        source.write_bytes(DATA)
        folder.put_file(source, move=True)
        assert not source.exists()
    assert folder.read(SHA) == DATA
    assert len(files(folder.root)) == 1


def test_moving_the_stores_own_file_into_it_keeps_it(folder: FilesystemStore, tmp_path: Path) -> None:
    folder.put_bytes(DATA)
    folder.put_file(folder.fetch(SHA, tmp_path), move=True)
    assert folder.read(SHA) == DATA


def test_putting_again_does_not_rewrite(folder: FilesystemStore, tmp_path: Path) -> None:
    folder.put_bytes(DATA)
    path = folder.fetch(SHA, tmp_path)
    os.utime(path, (0, 0))
    inode = path.stat().st_ino
    folder.put_bytes(DATA)
    assert path.stat().st_ino == inode
    assert time.time() - path.stat().st_mtime < 60


def test_strangers_in_the_folder_are_no_blobs(folder: FilesystemStore) -> None:
    folder.put_bytes(DATA)
    (folder.root / "aa" / "bb").mkdir(parents=True)
    (folder.root / "aa" / "bb" / SHA).write_bytes(b"misplaced")
    (folder.root / "aa" / "bb" / "notes.txt").write_bytes(b"")
    assert [entry.sha256 for entry in folder.list()] == [SHA]


def test_a_store_that_was_never_written_is_empty(folder: FilesystemStore) -> None:
    assert list(folder.list()) == []
    with pytest.raises(BlobMissing):
        folder.read(SHA)
    assert not folder.root.exists()
