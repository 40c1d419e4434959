"""Which URL opens which store."""

from pathlib import Path

import pytest

from app.storage import BucketStore, FilesystemStore, S3Options, open_store


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("file:///srv/blobs", "/srv/blobs"),
        ("file:///srv/with space#and%20more", "/srv/with space#and%20more"),
        ("/srv/blobs", "/srv/blobs"),
        ("blobs", str(Path("blobs").absolute())),
    ],
)
def test_folders(url: str, root: str) -> None:
    store = open_store(url)
    assert isinstance(store, FilesystemStore)
    assert str(store.root) == root


def test_buckets() -> None:
    store = open_store("s3://bucket/some/prefix/", s3=S3Options(endpoint="http://s3:7070"))
    assert isinstance(store, BucketStore)
    assert store.where == "s3://bucket/some/prefix"
    bare = open_store("s3://bucket", s3=S3Options())
    assert isinstance(bare, BucketStore)
    assert bare.where == "s3://bucket"


@pytest.mark.parametrize(
    "url", ["", "file://", "file://host/path", "gs://bucket/x", "s3://", "s3://ab/x", "s3://bucket"]
)
def test_others_are_refused(url: str) -> None:
    with pytest.raises(ValueError):
        open_store(url, s3=None if url == "s3://bucket" else S3Options())


def test_half_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="both or neither"):
        open_store("s3://bucket", s3=S3Options(access_key="only"))
