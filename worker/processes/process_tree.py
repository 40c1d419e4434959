"""A child's family: every process that came from it, whichever session, group or parent it has now (Linux's /proc)."""

import os
import signal
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "GRAFTWORK_FAMILY"  # inherited by whatever a child starts, as a build server marks a build's processes
WORKER = uuid.uuid4().hex  # marks all that comes from this process

_PATIENCE = 5.0  # seconds in which a killed process has to be gone; one that waits for a broken disk is not


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    group: int
    session: int
    started: str  # a process id is used again, the two together are not


def end_family(mark: str | None, root: int | None = None, known: Collection[Process] = ()) -> bool:
    """Kill every member of the family, and those `known` from an earlier look. Returns when they are gone, and whether
    they are."""
    deadline = time.monotonic() + _PATIENCE
    while living := [*members(mark, root), *(one for one in known if _lives(one))]:
        if time.monotonic() >= deadline:
            return False
        for process in living:
            _kill(process)
        time.sleep(0.01)
    return True


def members(mark: str | None, root: int | None = None) -> list[Process]:
    """Return the processes that carry a mark beginning with `mark`, are of the session or group of `root`, or were
    started by one of these.

    One that drops its environment and changes its session is known by its parent alone: look before that one ends.
    """
    everybody = list(_processes())
    found = {one.pid for one in everybody if root in (one.pid, one.session, one.group)}
    if mark is not None:
        marked = f"\0{VARIABLE}={mark}".encode()
        found |= {one.pid for one in everybody if _carries(one.pid, marked)}
    grown = True
    while grown:  # what a member started, though it may have dropped the mark
        line = {one.pid for one in everybody if one.parent in found} - found
        found |= line
        grown = bool(line)
    return [one for one in everybody if one.pid in found and one.pid != os.getpid()]


def _processes() -> Iterator[Process]:
    """Yield every living process; one that is dead and not yet waited for does not count."""
    for folder in Path("/proc").glob("[0-9]*"):
        if (found := _process(int(folder.name))) is not None:
            yield found


def _process(pid: int) -> Process | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended since
        return None
    return None if fields[0] in "ZX" else Process(pid, int(fields[1]), int(fields[2]), int(fields[3]), fields[19])


def _lives(process: Process) -> bool:
    now = _process(process.pid)
    return now is not None and now.started == process.started


def _carries(pid: int, marked: bytes) -> bool:
    try:
        return marked in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # gone, or another user's
        return False


def _kill(process: Process) -> None:
    with suppress(OSError):
        handle = os.pidfd_open(process.pid)
        try:  # the handle is of whoever has that id now: it has to be the one that was looked at
            if _lives(process):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
