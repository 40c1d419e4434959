"""This module says where the files of a dataset are read from: an archive that was sent, or a place that was named."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from app.core.errors import Invalid, TooLarge
from app.datasets.formats.archive import ArchiveLimits, Listing, Member, members
from app.datasets.formats.layout import Layout, Skipped
from app.datasets.formats.placement import place_files
from app.datasets.intake.intake import RejectedFile

ReadFile = Callable[[], bytes]


class Source(Protocol):
    """A source has files by name. `apart`: whether each file can be read at any time and by any thread."""

    apart: bool

    def layout(self) -> Layout:
        """Return where each file belongs. Raises `Invalid` where that cannot be told."""
        ...

    def files(self, layout: Layout) -> Iterator[tuple[str, ReadFile]]:
        """Yield the files that are placed. Reading one raises `RejectedFile` for a fault of its own."""
        ...


class ArchiveSource:
    """This source is an archive on local disk, read from front to back."""

    apart = False

    def __init__(self, archive: Path, limits: ArchiveLimits) -> None:
        self._archive = archive
        self._limits = limits
        self._listing = Listing()

    def layout(self) -> Layout:
        return place_files(members(self._archive, self._limits, self._listing))

    def files(self, layout: Layout) -> Iterator[tuple[str, ReadFile]]:
        for entry, read in members(self._archive, self._limits, self._listing):
            if entry.name in layout.placements:
                yield entry.name, _refused_if_large(read)


class StandingSource:
    """This source has files that stay where they are while they are read: below a folder, or in a bucket."""

    apart = True

    def __init__(self, files: "StandingFiles", budget: "Budget") -> None:
        self._files = files
        self._budget = budget
        self._members: list[Member] = []

    def layout(self) -> Layout:
        self._members = list(self._files.members())
        found = place_files(self._members)
        return replace(found, skipped=[*found.skipped, *self._files.skipped])

    def files(self, layout: Layout) -> Iterator[tuple[str, ReadFile]]:
        for entry, read in self._members:
            if entry.name in layout.placements:
                yield entry.name, self._budget.counted(read)


class StandingFiles(Protocol):
    skipped: list[Skipped]  # complete once `members` has been walked

    def members(self) -> Iterator[Member]: ...


class Budget:
    """A budget limits the bytes of all files together: the size of what is read from elsewhere is not known before."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._spent = 0
        self._lock = threading.Lock()

    def counted(self, read: ReadFile) -> ReadFile:
        """Return the same reader, raising `Invalid` (`too_many_bytes`) once the files read have more than the limit
        together."""

        def reading() -> bytes:
            data = read()
            with self._lock:
                self._spent += len(data)
                if self._spent > self._limit:
                    raise Invalid(
                        f"The files have more than {self._limit} bytes together, all that GRAFT_MAX_EXPANDED_BYTES or "
                        "the workspace's limit leaves. Import fewer, or delete datasets that are no longer needed.",
                        code="too_many_bytes",
                    )
            return data

        return reading


def _refused_if_large(read: ReadFile) -> ReadFile:
    def checked() -> bytes:
        try:
            return read()
        except TooLarge as error:
            remedy = "Send a smaller file, or raise GRAFT_MAX_FILE_BYTES."
            raise RejectedFile("file_too_large", error.detail, remedy) from None

    return checked
