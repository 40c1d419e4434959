"""Look at other processes: the children that compute for a worker, and whether a group of processes is gone."""

from pathlib import Path


def children(kind: str, parent: int) -> list[int]:
    """Return the process ids of a worker's children that compute jobs of this kind."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended since
            continue
        if b"worker.child" in arguments and kind.encode() in arguments and int(fields[1]) == parent:
            found.append(int(folder.name))
    return found


def group_is_gone(group: int) -> bool:
    """Return whether no process of that group lives. One that is dead and not yet waited for does not count."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, member_of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(member_of) == group and state not in "ZX":
            return False
    return True
