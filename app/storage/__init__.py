"""This package stores blobs by their SHA-256, in a folder or in an S3-compatible bucket, behind one Protocol."""

from pathlib import Path

from app.storage.blobs import Blob, BlobDamaged, BlobMissing, BlobStore, StoredBlob
from app.storage.connection import S3Options
from app.storage.filesystem import FilesystemStore
from app.storage.s3 import BucketStore

__all__ = [
    "Blob",
    "BlobDamaged",
    "BlobMissing",
    "BlobStore",
    "BucketStore",
    "FilesystemStore",
    "S3Options",
    "StoredBlob",
    "open_store",
]


def open_store(url: str, *, s3: S3Options | None = None) -> BlobStore:
    """Return the store at `file:///path`, a plain path, or `s3://bucket/prefix` (which needs `s3`). Touches nothing
    yet.

    A path is taken literally, without percent-decoding. Raises ValueError for any other URL, for an `s3://` one without
    a bucket or without `s3`, and where only one of the two keys is given.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and url:
        return FilesystemStore(Path(url))
    if scheme == "file":
        if not rest.startswith("/"):
            raise ValueError(f"{url} is not a local folder: file:///path has three slashes")
        return FilesystemStore(Path(rest))
    if scheme != "s3":
        raise ValueError(f"{url!r} is not a place for blobs: use file:///path, a path, or s3://bucket/prefix")
    if s3 is None:
        raise ValueError(f"{url} needs S3 settings: endpoint, region and keys")
    bucket, _, prefix = rest.partition("/")
    if len(bucket) < 3:
        raise ValueError(f"{url} names no bucket (at least 3 characters): s3://bucket/prefix")
    if (s3.access_key is None) != (s3.secret_key is None):
        raise ValueError("an S3 access key and its secret key go together: set both or neither")
    return BucketStore(bucket, prefix.strip("/"), s3)
