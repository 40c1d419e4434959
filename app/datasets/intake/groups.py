"""This module groups the files of a dataset that are taken in together: small images cost less so than one by one."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from app.datasets.formats.layout import Layout
from app.datasets.intake.intake import File, RejectedFile, Taken
from app.datasets.sources.source import ReadFile, Source

_FILES = 128  # a group,
_BYTES = 1 << 19  # and so many bytes: what is larger goes by itself

TakeIn = Callable[[Sequence[File]], list[Taken]]  # `IntakePool.take_in_all`
FileBytes: TypeAlias = "bytes | RejectedFile"
Group: TypeAlias = "list[tuple[str, FileBytes | ReadFile]]"  # names, with what the files hold or what reads them


def groups(source: Source, layout: Layout) -> Iterator[Group]:
    """Yield the placed files, several small ones together. A file that can be read apart is a group of its own: it is
    read by whoever takes it in, and its size is known only then."""
    group: Group = []
    size = 0
    for name, read in source.files(layout):
        if source.apart:
            yield [(name, read)]
            continue
        data = _read(read)
        more = 0 if isinstance(data, RejectedFile) else len(data)
        if group and (len(group) >= _FILES or size + more > _BYTES):
            yield group
            group, size = [], 0
        group.append((name, data))
        size += more
    if group:
        yield group


def take_in_group(group: Group, take_in: TakeIn) -> list[tuple[str, Taken]]:
    """Return what became of each file, in order."""
    found = [(name, _read(held) if callable(held) else held) for name, held in group]
    readable = [(data, name) for name, data in found if not isinstance(data, RejectedFile)]
    taken = iter(take_in(readable) if readable else ())
    return [(name, data if isinstance(data, RejectedFile) else next(taken)) for name, data in found]


def _read(read: ReadFile) -> FileBytes:
    try:
        return read()
    except RejectedFile as error:
        return error
