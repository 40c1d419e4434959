"""This module writes local files that are whole or absent, and explains disk errors."""

import ctypes
import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from app.core.errors import StorageFull, Unavailable

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def staged_file(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield a new file in `folder` (made if needed), removed on the way out unless it was renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder)
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def staged_files(folder: Path, contents: Sequence[bytes]) -> Iterator[list[str]]:
    """Yield a new file in `folder` (made if needed) for each of the given bytes; where the body raises, those it has
    not renamed are removed. Each file costs as little as it can, for there may be many small ones."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{folder}/{uuid.uuid4().hex}"
    paths = []
    try:
        for number, content in enumerate(contents):
            paths.append(path := f"{name}-{number}")
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(handle, rest) :]
            finally:
                os.close(handle)
        yield paths
    except BaseException:
        for path in paths:
            Path(path).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlast a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_disk(folder: Path) -> None:
    """Make all that was written to the file system of `folder` outlast a power cut: many files for one wait."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # not Linux
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if syncfs(handle) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(handle)


@contextmanager
def disk_errors_explained(folder: Path) -> Iterator[None]:
    """Turn any OSError of the body into Unavailable, or StorageFull, that says what to do about `folder`."""
    try:
        yield
    except OSError as error:
        raise explained(folder, error) from error


def check_free(folder: Path, floor: int, more: int = 0) -> None:
    """Raise StorageFull if `more` bytes would leave less than `floor` free on the disk of `folder`, which exists."""
    with disk_errors_explained(folder):
        free = shutil.disk_usage(folder).free
    if free - more < floor:
        what = f"{free // 2**20} MiB free, too few for {more} bytes and" if more else f"{free // 2**20} MiB free, below"
        raise StorageFull(
            f"The folder {folder} has {what} the floor of {floor // 2**20} MiB (GRAFT_MIN_FREE_BYTES). "
            "Free some space, then try again.",
            retry_after=30,
        )


def is_disk_error(error: OSError) -> bool:
    """Return whether it is the disk's fault, rather than that of whoever named the file."""
    return error.errno in {*_NO_ROOM, *_NO_PERMISSION, errno.EIO, errno.ESTALE}


def explained(folder: Path, error: OSError) -> Unavailable:
    """Return `StorageFull`, or else `Unavailable`, that says what to do about `folder`."""
    if error.errno in _NO_ROOM:
        return StorageFull(_advice(folder, error), retry_after=30)
    return Unavailable(_advice(folder, error), code="storage_unavailable", retry_after=30)


def _advice(folder: Path, error: OSError) -> str:
    what = f"{error.strerror or error}: {error.filename or folder}"
    if error.errno in _NO_ROOM:
        free = ""
        with suppress(OSError):
            free = f" ({shutil.disk_usage(folder).free // 2**20} MiB free)"
        return f"The folder {folder} has no room{free} ({what}). Free some space, then try again."
    if error.errno in _NO_PERMISSION:
        return (
            f"The folder {folder} does not allow this ({what}). "
            f"Give the user with id {os.geteuid()} read and write access to it."
        )
    return f"The folder {folder} failed ({what}). Check that it is a folder and that its disk is mounted."
