"""Count the processes that the kernel ended for lack of memory, because a SIGKILL does not tell who sent it.

https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.events), cgroup-v1/memory.html (memory.oom_control), and
`oom_kill` in /proc/vmstat, which counts for the whole machine.
"""

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class OomKills:
    """Counts of processes that the kernel has ended for lack of memory so far; None where it does not say."""

    group: int | None  # in this process's control group, which its children share
    machine: int | None


def oom_kills(root: Path = Path("/")) -> OomKills:
    group = None
    for events in _group_files(root):
        group = _count(events) if group is None else group
    return OomKills(group, _count(root / "proc/vmstat"))


def _group_files(root: Path) -> list[Path]:
    """Return the files where this process's control group may count: version 2, then 1; also as in a container."""
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            mount, name = root / "sys/fs/cgroup", "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = root / "sys/fs/cgroup/memory", "memory.oom_control"
        else:
            continue
        found += [mount / group.lstrip("/") / name, mount / name]
    return found


def _count(path: Path) -> int | None:
    found = re.search(r"^oom_kill (\d+)$", _read(path), re.MULTILINE)
    return int(found[1]) if found else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
