"""This module keeps blobs as files below one folder: `ab/<sha256>`, written temp → fsync → rename → fsync of the
folder."""

import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from app.storage.blobs import CHUNK_BYTES, Blob, BlobDamaged, BlobMissing, StoredBlob, blob_key
from app.storage.disk import disk_errors_explained, staged_file, staged_files, sync_disk, sync_folder


class FilesystemStore:
    """This `BlobStore` lies in a local or network folder, which is made when something is first written."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        # Below root, so that the rename never crosses file systems.
        self._tmp = self.root / "tmp"
        self._prefix = f"{self.root}/"  # strings, for of small blobs a path's making costs more than its use

    def __repr__(self) -> str:
        return f"FilesystemStore({str(self.root)!r})"

    def put_bytes(self, data: bytes) -> Blob:
        blob = Blob(hashlib.sha256(data).hexdigest(), len(data))
        with disk_errors_explained(self.root):
            if not self._refresh(blob):
                with staged_file(self._tmp) as (staged, file):
                    file.write(data)
                    self._publish(staged, file, blob)
        return blob

    def put_many(self, contents: Sequence[bytes]) -> Sequence[Blob]:
        # Written, synced together, renamed, synced together: a rename never gets to the disk before its bytes.
        blobs = [Blob(hashlib.sha256(data).hexdigest(), len(data)) for data in contents]
        with disk_errors_explained(self.root):
            missing = [(blob, data) for blob, data in zip(blobs, contents, strict=True) if not self._refresh(blob)]
            if missing:
                with staged_files(self._tmp, [data for _, data in missing]) as staged:
                    sync_disk(self._tmp)
                    for path, (blob, _) in zip(staged, missing, strict=True):
                        self._rename(path, self._place(blob.sha256))
                    sync_disk(self.root)
        return blobs

    def put_file(self, path: Path, *, move: bool = False) -> Blob:
        with disk_errors_explained(self.root):
            return self._take(path) if move else self._copy(path)

    def read(self, sha256: str) -> bytes:
        with self.open(sha256) as file, disk_errors_explained(self.root):
            data = file.read()
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise BlobDamaged(sha256, str(self.root), found)
        return data

    def open(self, sha256: str) -> BufferedReader:
        with disk_errors_explained(self.root):
            for place in self._places(sha256):
                with suppress(FileNotFoundError):
                    return open(place, "rb")  # noqa: PTH123
        raise BlobMissing(sha256, str(self.root))

    def fetch(self, sha256: str, directory: Path) -> Path:
        # Checked although nothing is copied: a weight with a flipped bit would load, and answer, without complaint.
        with self.open(sha256) as file, disk_errors_explained(self.root):
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise BlobDamaged(sha256, str(self.root), found)
        return Path(file.name)

    def exists(self, sha256: str) -> bool:
        with disk_errors_explained(self.root):
            return any(Path(place).is_file() for place in self._places(sha256))

    def delete(self, sha256: str, *, older_than: datetime | None = None) -> bool:
        deleted = False
        with disk_errors_explained(self.root):
            for path in map(Path, self._places(sha256)):
                with suppress(FileNotFoundError):
                    if older_than is not None and path.stat().st_mtime >= older_than.timestamp():
                        return False
                    path.unlink()
                    deleted = True
        return deleted

    def list(self, older_than: datetime | None = None) -> Iterator[StoredBlob]:
        with disk_errors_explained(self.root):
            for path in chain(self.root.glob("??/*"), self.root.glob("??/??/*")):
                if not self._is_blob(path):
                    continue
                with suppress(FileNotFoundError):  # deleted since the folder was read
                    stat = path.stat()
                    modified = datetime.fromtimestamp(stat.st_mtime, UTC)
                    if older_than is None or modified < older_than:
                        yield StoredBlob(path.name, stat.st_size, modified)

    def discard_unfinished(self, older_than: datetime) -> int:
        discarded = 0
        with disk_errors_explained(self._tmp):
            for path in self._tmp.glob("*"):
                with suppress(FileNotFoundError):
                    if path.stat().st_mtime < older_than.timestamp():
                        path.unlink()
                        discarded += 1
        return discarded

    def now(self) -> datetime:
        # Of a network folder it is the server's clock.
        with disk_errors_explained(self.root), staged_file(self._tmp) as (_, file):
            file.write(b"now")
            file.flush()
            return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)

    def check(self) -> None:
        # Without waiting for the disk, as each job asks: a full one, or one that is read-only, says so here.
        with disk_errors_explained(self.root), staged_file(self._tmp) as (_, file):
            file.write(b"writable")

    def _places(self, sha256: str) -> tuple[str, str]:
        """Return where the blob is put, and where earlier versions of the store put it: a folder for nearly each
        one."""
        nested = blob_key(sha256)
        return f"{self._prefix}{sha256[:2]}/{sha256}", self._prefix + nested

    def _place(self, sha256: str) -> str:
        return self._places(sha256)[0]

    def _is_blob(self, path: Path) -> bool:
        try:
            return str(path) in self._places(path.name)
        except ValueError:
            return False

    def _copy(self, path: Path) -> Blob:
        with path.open("rb") as source, staged_file(self._tmp) as (staged, file):
            digest = hashlib.sha256()
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            blob = Blob(digest.hexdigest(), file.tell())
            if not self._refresh(blob):
                self._publish(staged, file, blob)
        return blob

    def _take(self, path: Path) -> Blob:
        with path.open("rb") as file:
            blob = Blob(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())
            if not self._refresh(blob):
                try:
                    self._publish(path, file, blob)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    blob = self._copy(path)
        # What is left is a second copy, unless the caller handed in the store's own file.
        if str(path.absolute()) not in self._places(blob.sha256):
            path.unlink(missing_ok=True)
        return blob

    def _refresh(self, blob: Blob) -> bool:
        """Return whether the blob is there, and set its time to now. A file of another size is damaged and gets
        replaced."""
        for place in self._places(blob.sha256):
            try:
                os.utime(place)
                return os.stat(place).st_size == blob.size  # noqa: PTH116
            except FileNotFoundError:
                continue
        return False

    def _rename(self, staged: str, target: str) -> None:
        try:
            os.replace(staged, target)  # noqa: PTH105
        except FileNotFoundError:  # the first of its folder
            Path(target).parent.mkdir(exist_ok=True)
            os.replace(staged, target)  # noqa: PTH105

    def _publish(self, staged: Path, file: BinaryIO, blob: Blob) -> None:
        file.flush()
        # A moved file may be old, and a rename keeps its time; the garbage collector must see it as new at once.
        os.utime(file.fileno())
        os.fsync(file.fileno())
        target = Path(self._place(blob.sha256))
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(self.root)
        staged.replace(target)
        sync_folder(target.parent)
