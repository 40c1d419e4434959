"""This module reads files below a folder of this server, for a caller who may mean harm: no link is followed, at any
step.

Each folder is opened from the one above it by a name that may not be a link, so what is moved or replaced meanwhile
leads nowhere else (`openat`, O_NOFOLLOW).
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import FieldError, Invalid
from app.datasets.formats.archive import Entry, Member
from app.datasets.formats.layout import Skipped
from app.datasets.formats.zip_file import too_many_entries
from app.datasets.intake.intake import RejectedFile

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Non-blocking: opening a pipe that nobody writes to would wait for ever.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEEPEST = 64  # folders below the one that was named
_LINK = "Copy the file itself there instead."


def allowed_root(folder: str, roots: list[Path]) -> tuple[Path, tuple[str, ...]]:
    """Return the operator's root that `folder` lies below, and the way from there. Looks at names alone.

    Raises `Invalid` (`folder_not_allowed`).
    """
    path = Path(folder)
    if path.is_absolute() and ".." not in path.parts and "\0" not in folder:
        for root in roots:
            if path == root or root in path.parents:
                return root, path.relative_to(root).parts
    detail = (
        f"The folder {folder[:200]!r} is not below one that the operator allows. Give an absolute path without '..' "
        "below a folder that GRAFT_IMPORT_FOLDERS names."
    )
    raise Invalid(detail, code="folder_not_allowed", errors=[FieldError("folder", detail, "folder_not_allowed")])


class FolderFiles:
    """These are the plain files below a folder. `skipped` names the others, once `members` has been walked."""

    def __init__(self, root: Path, way: tuple[str, ...], max_entries: int, max_bytes: int) -> None:
        self._root = root
        self._way = way
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.skipped: list[Skipped] = []

    def members(self) -> Iterator[Member]:
        """Yield the files in the order of their names. Raises `Invalid` for a folder that is not there, or holds too
        much."""
        try:
            with _opened(self._root, self._way) as folder:
                found = self._walk(folder, (), [0])
        except OSError as error:
            shown = self._root.joinpath(*self._way)
            raise Invalid(
                f"The folder {shown} cannot be read: {error.strerror}. It has to be there for each worker, and no link "
                "may lead to it.",
                code="folder_unreadable",
            ) from None
        for parts, size in sorted(found):
            yield Entry("/".join(parts), size), self._reader(parts)

    def _walk(self, folder: int, way: tuple[str, ...], seen: list[int]) -> list[tuple[tuple[str, ...], int]]:
        files, folders = [], []
        with os.scandir(folder) as entries:
            for entry in entries:
                seen[0] += 1
                if seen[0] > self._max_entries:
                    raise too_many_entries(self._max_entries)
                parts = (*way, entry.name)
                if entry.is_dir(follow_symlinks=False) and len(parts) > _DEEPEST:
                    self._skip(parts, "too_deep", f"It is more than {_DEEPEST} folders deep.", "Move it up.")
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(parts)
                elif not entry.is_file(follow_symlinks=False):
                    self._skip(parts, "not_a_plain_file", "It is a link or a device.", _LINK)
                elif not entry.name.isprintable():
                    self._skip(parts, "unsafe_name", "Its name is no printable text.", "Rename it.")
                else:
                    files.append((parts, entry.stat(follow_symlinks=False).st_size))
        for parts in folders:
            below = os.open(parts[-1], _FOLDER, dir_fd=folder)
            try:
                files += self._walk(below, parts, seen)
            finally:
                os.close(below)
        return files

    def _skip(self, parts: tuple[str, ...], code: str, reason: str, remedy: str) -> None:
        name = "/".join(parts).encode("utf-8", "backslashreplace").decode()
        self.skipped.append(Skipped(name, code, reason, remedy))

    def _reader(self, parts: tuple[str, ...]) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                with _opened(self._root, (*self._way, *parts[:-1])) as folder:
                    return self._read(os.open(parts[-1], _FILE, dir_fd=folder))
            except OSError as error:
                reason = f"It cannot be read: {error.strerror}."
                raise RejectedFile("unreadable_file", reason, "Leave the folder as it is meanwhile.") from None

        return read

    def _read(self, handle: int) -> bytes:
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RejectedFile("not_a_plain_file", "It is a link or a device.", _LINK)
            data = file.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise RejectedFile(
                "file_too_large",
                f"It has more than {self._max_bytes} bytes.",
                "Use a smaller file, or raise GRAFT_MAX_FILE_BYTES.",
            )
        return data


@contextmanager
def _opened(root: Path, way: tuple[str, ...]) -> Iterator[int]:
    """Open and return the folder at the end of the path. The root itself is the operator's, and may be a link."""
    handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in way:
            below = os.open(part, _FOLDER, dir_fd=handle)
            os.close(handle)
            handle = below
        yield handle
    finally:
        os.close(handle)
