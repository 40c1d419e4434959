"""What only a bucket can show: connections, credentials, strays in the environment, uploads that are spared."""

import hashlib
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import obstore
import pytest

from app.core.errors import Unavailable
from app.storage import Blob, BucketStore, S3Options
from tests.support.buckets import BUCKET

DATA = b"a grafted head"
SHA = hashlib.sha256(DATA).hexdigest()


def every_use(store: BucketStore, directory: Path) -> list[Callable[[], object]]:
    source = directory / "source"
    source.write_bytes(DATA)
    return [
        store.check,
        lambda: store.put_bytes(DATA),
        lambda: store.put_file(source),
        lambda: list(store.list()),
        lambda: store.read(SHA),
        lambda: store.fetch(SHA, directory / "cache"),
    ]


def test_a_store_that_does_not_answer(s3_options: S3Options, tmp_path: Path) -> None:
    store = BucketStore(BUCKET, "p", replace(s3_options, endpoint="http://127.0.0.1:9"))
    for use in [*every_use(store, tmp_path)[:2], lambda: store.exists(SHA), lambda: store.delete(SHA)]:
        with pytest.raises(Unavailable, match=r"Check that http://127\.0\.0\.1:9 is up") as caught:
            use()
        assert "\n" not in caught.value.detail
        assert "test-secret" not in caught.value.detail
        assert caught.value.retry_after


def test_a_bucket_that_is_not_there(s3_options: S3Options, tmp_path: Path) -> None:
    store = BucketStore("no-such-bucket", "p", s3_options)
    for use in every_use(store, tmp_path):
        with pytest.raises(Unavailable, match="The bucket does not exist: create it"):
            use()


def test_only_an_http_endpoint_is_spoken_to_in_the_clear(s3_options: S3Options, tmp_path: Path) -> None:
    assert s3_options.endpoint is not None
    store = BucketStore(BUCKET, "p", replace(s3_options, endpoint=s3_options.endpoint.replace("http:", "https:")))
    with pytest.raises(Unavailable):
        store.check()


def test_the_environment_is_not_listened_to(s3_options: S3Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "stray")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "stray")
    BucketStore(BUCKET, "environment", s3_options).check()


def test_keys_and_prefix(bucket: BucketStore) -> None:
    bucket.put_bytes(DATA)
    ((entry,),) = obstore.list(bucket._store)
    assert entry["path"] == f"{SHA[:2]}/{SHA[2:4]}/{SHA}"


def test_neighbours_under_another_prefix_are_not_listed(s3_options: S3Options) -> None:
    BucketStore(BUCKET, "team", s3_options).put_bytes(DATA)
    assert list(BucketStore(BUCKET, "tea", s3_options).list()) == []
    assert [blob.sha256 for blob in BucketStore(BUCKET, "team", s3_options).list()] == [SHA]


def test_a_fresh_blob_is_not_uploaded_again(s3_options: S3Options) -> None:
    store = BucketStore(BUCKET, "fresh", s3_options)
    store.put_bytes(DATA)
    (first,) = store.list()
    time.sleep(1.1)
    store.put_bytes(DATA)
    assert list(store.list()) == [first]


def test_a_full_local_disk_is_not_blamed_on_the_bucket(bucket: BucketStore, tmp_path: Path) -> None:
    blob = bucket.put_bytes(b"x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(Unavailable, match=r"cache has no room"):
            bucket.fetch(blob.sha256, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "cache").iterdir()) == []


def test_secrets_stay_out_of_reprs(s3_options: S3Options, bucket: BucketStore) -> None:
    assert "test-secret" not in repr(s3_options) + repr(bucket)


def test_many_are_uploaded_at_once(s3_options: S3Options) -> None:
    together = threading.Barrier(8)

    class Slow(BucketStore):
        def put_bytes(self, data: bytes) -> Blob:
            together.wait(60)
            return super().put_bytes(data)

    store = Slow(BUCKET, "together", s3_options)
    blobs = store.put_many([bytes([number]) for number in range(8)])
    assert [store.read(blob.sha256) for blob in blobs] == [bytes([number]) for number in range(8)]
