"""Why a child died: the kernel's counters tell its out-of-memory killer from anybody else's SIGKILL."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from worker.processes.exit_reasons import death
from worker.processes.oom import OomKills, oom_kills

KILLED = -signal.SIGKILL
CGROUPS = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("before", "after", "reason", "says"),
    [
        (OomKills(0, 3), OomKills(1, 4), "out_of_memory", "control group"),
        (OomKills(None, 3), OomKills(None, 4), "out_of_memory", "on the worker's machine"),
        (OomKills(2, 3), OomKills(2, 3), "killed", "ended none"),
        (OomKills(None, None), OomKills(None, None), "killed", "does not say"),
    ],
)
def test_what_is_said_of_a_sigkill(before: OomKills, after: OomKills, reason: str, says: str) -> None:
    failure = death(KILLED, before, after)
    assert failure["reason"] == reason
    assert says in failure["detail"]
    assert failure["hint"]


def test_another_end_is_named(tmp_path: Path) -> None:
    none = OomKills(None, None)
    assert "SIGSEGV" in death(-signal.SIGSEGV, none, none)["detail"]
    assert "exit status 3" in death(3, none, none)["detail"]
    assert "signal 63" in death(-63, none, none)["detail"]


def test_where_the_kernel_counts(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) == OomKills(None, None)
    proc, cgroup = tmp_path / "proc", tmp_path / "sys/fs/cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("nr_free_pages 12\noom_kill 7\n")
    (proc / "self/cgroup").write_text("0::/jobs/worker\n")
    (cgroup / "jobs/worker").mkdir(parents=True)
    (cgroup / "jobs/worker/memory.events").write_text("low 0\noom 4\noom_kill 2\noom_group_kill 0\n")
    assert oom_kills(tmp_path) == OomKills(2, 7)
    (proc / "self/cgroup").write_text("4:memory:/elsewhere\n0::/\n")
    (cgroup / "memory").mkdir()
    (cgroup / "memory/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert oom_kills(tmp_path) == OomKills(5, 7)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of this test's own with 64 MiB."""
    version_1 = (CGROUPS / "memory/memory.limit_in_bytes").exists()
    folder = (CGROUPS / "memory" if version_1 else CGROUPS) / f"graftwork-test-{os.getpid()}"
    limits = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] if version_1 else ["memory.max"]
    try:
        folder.mkdir()
        for name in limits:
            if (folder / name).exists():
                (folder / name).write_text(str(64 * 2**20))
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"control groups cannot be made here: {error}")
    yield folder
    folder.rmdir()


def test_a_process_that_the_kernel_ends_for_memory_is_told_from_one_that_somebody_kills(small_group: Path) -> None:
    """A real one: a process in a small control group takes more than there is."""
    before = oom_kills()
    program = (
        f"import os; open('{small_group}/cgroup.procs', 'w').write(str(os.getpid()))\n"
        "hog = [bytearray(os.urandom(2**20) * 8) for _ in range(64)]"
    )
    hog = subprocess.run([sys.executable, "-c", program], check=False)
    if hog.returncode != KILLED:
        pytest.skip(f"the kernel does not enforce a control group's limit here: exit status {hog.returncode}")
    after = oom_kills()
    assert death(hog.returncode, before, after)["reason"] == "out_of_memory"
    assert death(hog.returncode, after, oom_kills())["reason"] == "killed"
