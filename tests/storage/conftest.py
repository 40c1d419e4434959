"""Real stores: a folder, and a bucket in an S3 server that runs in this process."""

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path

import obstore
import pytest

from app.storage import BlobStore, BucketStore, FilesystemStore, S3Options
from tests.support.buckets import BUCKET

_prefixes = count()


@pytest.fixture
def bucket(s3_options: S3Options) -> BucketStore:
    """An empty store; `refresh_after` of nothing, so that every put counts."""
    return BucketStore(BUCKET, f"pre fix/{next(_prefixes)}", s3_options, refresh_after=timedelta(0))


@pytest.fixture
def folder(tmp_path: Path) -> FilesystemStore:
    return FilesystemStore(tmp_path / "blobs")


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest) -> BlobStore:
    found: BlobStore = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def damage(store: BlobStore) -> Callable[[str, bytes], None]:
    """Puts other bytes where a blob lies, behind the store's back."""

    def overwrite(sha256: str, data: bytes) -> None:
        if isinstance(store, FilesystemStore):
            (store.root / sha256[:2] / sha256).write_bytes(data)
        else:
            assert isinstance(store, BucketStore)
            obstore.put(store._store, f"{sha256[:2]}/{sha256[2:4]}/{sha256}", data)

    return overwrite
