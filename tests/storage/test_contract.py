"""What every store promises, asked of each."""

import hashlib
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.core.errors import GraftError
from app.storage import Blob, BlobDamaged, BlobMissing, BlobStore, BucketStore
from app.storage.batches import Batches

DATA = b"a grafted head"
SHA = hashlib.sha256(DATA).hexdigest()
ABSENT = hashlib.sha256(b"never stored").hexdigest()
LARGE = os.urandom(33 << 20)  # three parts of a multipart upload


def test_bytes_come_back(store: BlobStore) -> None:
    assert store.put_bytes(DATA) == Blob(SHA, len(DATA))
    assert store.read(SHA) == DATA
    assert store.exists(SHA)


def test_empty_bytes_are_a_blob(store: BlobStore) -> None:
    blob = store.put_bytes(b"")
    assert blob == Blob(hashlib.sha256(b"").hexdigest(), 0)
    assert store.read(blob.sha256) == b""
    with store.open(blob.sha256) as file:
        assert file.read() == b""


@pytest.mark.parametrize("move", [False, True])
def test_a_file_is_copied_or_moved(store: BlobStore, tmp_path: Path, move: bool) -> None:
    source = tmp_path / "upload.bin"
    for _ in range(2):  # the second time the blob is there already
        source.write_bytes(DATA)
        assert store.put_file(source, move=move) == Blob(SHA, len(DATA))
        assert source.exists() is not move
        assert store.read(SHA) == DATA


def test_a_large_file_survives_the_round_trip(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.write_bytes(LARGE)
    blob = store.put_file(source)
    assert blob == Blob(hashlib.sha256(LARGE).hexdigest(), len(LARGE))
    assert store.fetch(blob.sha256, tmp_path / "cache").read_bytes() == LARGE


def test_open_streams_and_seeks(store: BlobStore) -> None:
    data = os.urandom(3 << 20)
    blob = store.put_bytes(data)
    with store.open(blob.sha256) as file:
        assert file.read(10) == data[:10]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(1 << 20)
        assert file.tell() == 1 << 20
        assert file.read(2 << 20) == data[1 << 20 :]


def test_fetch_uses_a_good_copy_again_and_replaces_a_bad_one(store: BlobStore, tmp_path: Path) -> None:
    store.put_bytes(DATA)
    first = store.fetch(SHA, tmp_path / "cache")
    before = first.stat().st_ino
    assert store.fetch(SHA, tmp_path / "cache").stat().st_ino == before
    if first.parent == tmp_path / "cache":  # not the store's own file
        first.write_bytes(b"truncat")
        assert store.fetch(SHA, tmp_path / "cache").read_bytes() == DATA
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [SHA]


def test_a_missing_blob_is_named(store: BlobStore, tmp_path: Path) -> None:
    assert not store.exists(ABSENT)
    for ask in (store.read, store.open, lambda sha256: store.fetch(sha256, tmp_path / "cache")):
        with pytest.raises(BlobMissing, match=ABSENT) as caught:
            ask(ABSENT)
        assert isinstance(caught.value, GraftError)
        assert (caught.value.status, caught.value.code) == (500, "blob_missing")
    assert not list(tmp_path.glob("cache/*"))


def test_damage_is_noticed(store: BlobStore, damage: Callable[[str, bytes], None], tmp_path: Path) -> None:
    store.put_bytes(DATA)
    damage(SHA, b"A grafted head")  # the same size
    with pytest.raises(BlobDamaged, match=SHA):
        store.read(SHA)
    if isinstance(store, BucketStore):  # a folder hands out the file itself, unread
        with pytest.raises(BlobDamaged):
            store.fetch(SHA, tmp_path / "cache")
        assert not list(tmp_path.glob("cache/*"))


def test_putting_again_mends_a_truncated_blob(store: BlobStore, damage: Callable[[str, bytes], None]) -> None:
    store.put_bytes(DATA)
    damage(SHA, DATA[:3])
    store.put_bytes(DATA)
    assert store.read(SHA) == DATA


def test_delete_is_idempotent(store: BlobStore) -> None:
    store.put_bytes(DATA)
    store.delete(SHA)
    store.delete(SHA)
    assert not store.exists(SHA)
    assert list(store.list()) == []


def test_list_gives_each_blob_once(store: BlobStore) -> None:
    assert list(store.list()) == []
    store.check()  # leaves nothing that looks like a blob
    before = datetime.now(UTC) - timedelta(seconds=2)
    blobs = {store.put_bytes(str(number).encode()) for number in range(12)}
    store.put_bytes(b"0")
    listed = list(store.list())
    assert {Blob(entry.sha256, entry.size) for entry in listed} == blobs
    assert len(listed) == 12
    assert all(before < entry.modified <= datetime.now(UTC) for entry in listed)
    assert list(store.list(before)) == []
    assert len(list(store.list(datetime.now(UTC) + timedelta(seconds=2)))) == 12


def test_putting_again_refreshes_the_time(store: BlobStore) -> None:
    store.put_bytes(DATA)
    (first,) = store.list()
    time.sleep(1.1)  # S3 counts whole seconds
    store.put_bytes(DATA)
    (second,) = store.list()
    assert second.modified > first.modified
    assert list(store.list(second.modified)) == []


def test_many_are_put_as_one_by_one(store: BlobStore) -> None:
    store.put_bytes(DATA)
    (before,) = store.list()
    time.sleep(1.1)
    contents = [b"one", DATA, b"", b"one", *(f"blob {number}".encode() for number in range(40))]
    blobs = store.put_many(contents)
    assert blobs == [Blob(hashlib.sha256(data).hexdigest(), len(data)) for data in contents]
    assert [store.read(blob.sha256) for blob in blobs] == contents
    listed = {blob.sha256: blob for blob in store.list()}
    assert len(listed) == 43
    assert isinstance(store, BucketStore) or listed[SHA].modified > before.modified
    assert list(store.put_many([])) == []


def test_batches_come_back_in_order(store: BlobStore) -> None:
    contents = [f"blob {number}".encode() for number in range(600)]
    with Batches(store) as batches:
        for data in contents:
            batches.put(data)
        blobs = batches.finish()
    assert [store.read(blob.sha256) for blob in blobs] == contents


def test_writers_of_the_same_bytes_do_not_disturb_each_other(store: BlobStore) -> None:
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(8):
                blob = store.put_bytes(bytes([number]) * 50_000)
                assert len(store.read(blob.sha256)) == 50_000
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(list(store.list())) == 8


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", SHA.upper(), SHA[:-1], SHA + "\n", f"{SHA[:-2]}/x"])
def test_only_a_hash_names_a_blob(store: BlobStore, bad: str, tmp_path: Path) -> None:
    for ask in (store.read, store.open, store.exists, store.delete, lambda name: store.fetch(name, tmp_path)):
        with pytest.raises(ValueError, match="SHA-256"):
            ask(bad)


def test_delete_says_whether_it_did_and_spares_what_was_put_since(store: BlobStore) -> None:
    put = store.put_bytes(DATA)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    assert store.delete(put.sha256, older_than=long_ago) is False
    assert store.exists(put.sha256)
    assert store.delete(put.sha256, older_than=datetime.now(UTC) + timedelta(hours=1)) is True
    assert not store.exists(put.sha256)
    assert store.delete(put.sha256) is False


def test_its_clock_is_the_one_that_dates_blobs(store: BlobStore) -> None:
    before = store.now()
    store.put_bytes(DATA)
    (blob,) = store.list()
    assert before.utcoffset() == timedelta(0)
    assert before - timedelta(seconds=1) <= blob.modified <= store.now() + timedelta(seconds=1)  # S3 counts seconds
