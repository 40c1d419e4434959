"""This module reads the objects below a prefix of a bucket that the operator opened for imports."""

from collections.abc import Callable, Iterator

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from app.core.errors import FieldError, Invalid, Unavailable
from app.datasets.formats.archive import Entry, Member
from app.datasets.formats.layout import Skipped
from app.datasets.formats.zip_file import too_many_entries
from app.datasets.intake.intake import RejectedFile
from app.storage.connection import S3Options, connect

_CHUNK = 1 << 18


def allowed_prefix(url: str, allowed: list[str]) -> tuple[str, str]:
    """Return bucket and prefix of `s3://bucket/prefix`, if it is below one of `allowed` (`bucket` or `bucket/prefix`).

    Raises `Invalid` (`bucket_not_allowed`).
    """
    scheme, _, rest = url.partition("://")
    parts = rest.strip("/").split("/")
    plain = scheme == "s3" and rest.isprintable() and not {"", ".", ".."} & set(parts)
    if plain and any(parts[: len(root)] == root for root in (one.strip("/").split("/") for one in allowed)):
        return parts[0], "/".join(parts[1:])
    detail = (
        f"{url[:200]!r} is not below a bucket or prefix that the operator allows. Give s3://bucket/prefix below one "
        "that GRAFT_IMPORT_BUCKETS names."
    )
    raise Invalid(detail, code="bucket_not_allowed", errors=[FieldError("s3", detail, "bucket_not_allowed")])


class BucketFiles:
    """These are the objects below a prefix. `skipped` names those that are left out, once `members` has been walked."""

    def __init__(self, bucket: str, prefix: str, options: S3Options, max_entries: int, max_bytes: int) -> None:
        self._where = f"s3://{bucket}/{prefix}".rstrip("/")
        self._store: S3Store = connect(bucket, prefix, options)
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.skipped: list[Skipped] = []

    def members(self) -> Iterator[Member]:
        """Yield the objects in the order of their keys. Raises `Unavailable`, and `Invalid` where there are too many or
        none."""
        found: list[tuple[str, int]] = []
        try:
            for page in obstore.list(self._store):
                found += [(entry["path"], entry["size"]) for entry in page]
                if len(found) > self._max_entries:
                    raise too_many_entries(self._max_entries)
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error
        if not found:
            raise Invalid(f"There is nothing below {self._where}. Name the prefix that holds the images.", code="empty")
        for key, size in sorted(found):
            if key.endswith("/"):  # what consoles leave for a folder
                continue
            if not key.isprintable() or {"", ".", ".."} & set(key.split("/")):
                reason = "Its key is no plain path."
                self.skipped.append(Skipped(ascii(key)[1:-1], "unsafe_name", reason, "Rename the object."))
                continue
            yield Entry(key, size), self._reader(key, size)

    def _reader(self, key: str, size: int) -> Callable[[], bytes]:
        def read() -> bytes:
            parts, count = [], size
            try:
                if count <= self._max_bytes:
                    count = 0
                    for chunk in obstore.get(self._store, key).stream(min_chunk_size=_CHUNK):
                        parts.append(bytes(chunk))
                        count += len(chunk)
                        if count > self._max_bytes:
                            break
            except FileNotFoundError:
                raise RejectedFile(
                    "unreadable_file", "It was removed meanwhile.", "Leave the bucket as it is meanwhile."
                ) from None
            except (BaseError, OSError) as error:
                raise self._unavailable(error) from error
            if count > self._max_bytes:
                reason = f"It has more than {self._max_bytes} bytes."
                remedy = "Use a smaller file, or raise GRAFT_MAX_FILE_BYTES."
                raise RejectedFile("file_too_large", reason, remedy)
            return b"".join(parts)

        return read

    def _unavailable(self, error: Exception) -> Unavailable:
        what = str(error).strip().partition("\n")[0]
        return Unavailable(
            f"{self._where} cannot be read. Check that it is there, and the GRAFT_IMPORT_S3 settings. ({what})",
            code="storage_unavailable",
            retry_after=30,
        )
