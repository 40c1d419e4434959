"""A child as its parent holds it: what it says, and that it and all it started end when they should."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.ingestions.type import INGEST
from tests.support.images import REPOSITORY, folder_zip
from tests.worker.conftest import PATIENCE, children, group_is_gone, wait_for
from worker.processes.messages import Work
from worker.processes.process import Child, ChildGone

pytestmark = pytest.mark.usefixtures("worker_environment")


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child(INGEST)
    yield child
    child.kill()


def work(scratch: Path, archive_sha256: str) -> Work:
    spec = {"archive_sha256": archive_sha256, "val_fraction": 0.2, "test_fraction": 0.0, "seed": 0}
    return Work(spec=spec, manifest_sha256=None, checkpoints=[], scratch=str(scratch))


def put_archive(home: Path) -> str:
    from app.core.settings import Settings
    from app.storage.configured import configured_store

    store = configured_store(Settings(home=home, _env_file=None))  # type: ignore[call-arg]
    return store.put_bytes(folder_zip({"ants": 3, "bees": 3})).sha256


def receive_all(child: Child) -> list[Any]:
    """Every message up to the end of the child."""
    messages = []
    while True:
        try:
            message = child.receive(PATIENCE)
        except ChildGone:
            return messages
        assert message is not None
        messages.append(message)


def test_a_child_says_when_it_is_ready_and_waits(child: Child) -> None:
    assert child.receive(PATIENCE) == {"kind": "ready", "body": {}}
    assert child.alive()
    assert child.receive(0.0) is None


def test_a_child_reports_its_job_and_ends(child: Child, tmp_path: Path) -> None:
    child.start(work(tmp_path / "scratch", put_archive(tmp_path)))
    messages = receive_all(child)
    kinds = [message["kind"] for message in messages]
    assert kinds[0] == "ready"
    assert set(kinds[1:-1]) == {"progress"}
    assert kinds[-1] == "result"
    fractions = [message["body"]["progress"] for message in messages[1:-1]]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert messages[-1]["body"]["classes"] == ["ants", "bees"]
    assert not child.alive()


def test_a_job_that_cannot_be_done_is_reported_as_failed_and_not_as_a_crash(child: Child, tmp_path: Path) -> None:
    from app.core.settings import Settings
    from app.storage.configured import configured_store

    store = configured_store(Settings(home=tmp_path, _env_file=None))  # type: ignore[call-arg]
    child.start(work(tmp_path / "scratch", store.put_bytes(b"no archive").sha256))
    last = receive_all(child)[-1]
    assert last["kind"] == "failed"
    assert last["body"]["failure"]["reason"] == "invalid_data"


def test_a_crash_is_reported_without_its_text(child: Child, tmp_path: Path) -> None:
    child.start(work(tmp_path / "scratch", "0" * 64))  # no such blob
    last = receive_all(child)[-1]
    assert last["kind"] == "failed"
    assert last["body"]["failure"]["reason"] == "internal"
    assert str(tmp_path) not in str(last)


def test_a_child_without_a_job_ends_when_its_pipe_closes(child: Child) -> None:
    assert child._process.stdin is not None
    child._process.stdin.close()
    assert [message["kind"] for message in receive_all(child)] == ["ready"]


def test_a_killed_child_shows_its_signal(child: Child) -> None:
    assert child.receive(PATIENCE) is not None
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ChildGone) as caught:
        child.receive(PATIENCE)
    assert caught.value.returncode == -signal.SIGKILL


def test_kill_ends_the_whole_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what the child started: here a process that ignores TERM and holds the child's pipes open."""
    command = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    inject(
        tmp_path,
        monkeypatch,
        "import subprocess\n"
        f"started = subprocess.Popen([sys.executable, '-c', {command!r}], stdout=subprocess.PIPE)\n"
        "started.stdout.readline()\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(started.pid))\n",
    )
    child = Child(INGEST)
    try:
        assert child.receive(PATIENCE) is not None
        stubborn = int((tmp_path / "pid").read_text())
        assert os.getpgid(stubborn) == os.getpgid(child.pid) == child.pid != os.getpgid(0)
    finally:
        child.kill(grace_seconds=0.2)
    assert not child.alive()
    wait_for(lambda: group_is_gone(child.pid))


RUNAWAYS = {
    "ignores TERM in a session of its own": "os.setsid(); rest()",
    "has lost its parent": "os.setsid()\nif os.fork() == 0: os.setsid(); rest()",
    "has dropped its environment": "os.setsid(); os.execve(sys.executable, [sys.executable, '-c', REST], {})",
}
REST = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "open({pids!r}, 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
)


def run_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let every child start one of each kind of process that is hard to end; gives the file of their ids."""
    pids = tmp_path / "pids"
    pids.touch()
    rest = REST.replace("{pids!r}", repr(str(pids)))
    code = "import os, signal, subprocess\n"
    for program in RUNAWAYS.values():
        program = f"import os, sys\nREST = {rest!r}\ndef rest(): exec(REST)\n{program}\n"
        code += f"subprocess.Popen([sys.executable, '-c', {program!r}])\n"
    # The child itself is stuck where no Python code runs and no signal but KILL helps.
    inject(tmp_path, monkeypatch, code)
    return pids


def runaways(pids: Path) -> list[int]:
    found: list[int] = wait_for(lambda: len(lines := pids.read_text().split()) == len(RUNAWAYS) and lines)
    return [int(pid) for pid in found]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_kill_ends_what_has_run_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = run_away(tmp_path, monkeypatch)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    child = Child(INGEST)
    try:
        started = runaways(pids)
        assert not any(is_gone(pid) or os.getsid(pid) == child.pid for pid in started)
    finally:
        child.kill(grace_seconds=0.2)
    try:
        assert all(is_gone(pid) for pid in started)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


STUCK = """
import sys, time
from app.ingestions.type import INGEST
from worker.processes.process import Child
from worker.processes.reaper import Reaper
reaper = Reaper()
child = Child(INGEST)
assert child.receive(60)["kind"] == "ready"
child.start({'spec': {}, 'manifest_sha256': None, 'checkpoints': [], 'scratch': ''})
assert child.receive(60)["kind"] == "progress"
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("rest", ["time.sleep(600)", "ctypes.PyDLL(None).sleep(600)"])
def test_a_killed_worker_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str) -> None:
    """Neither what a child started that sees its pipe close and goes, nor a child that is stuck in a C call with the
    interpreter's lock and cannot see it."""
    pids = run_away(tmp_path, monkeypatch)
    site = tmp_path / "injected" / "sitecustomize.py"
    site.write_text(
        site.read_text() + "    import ctypes, time, worker.kinds.ingest\n"
        "    def ingest(work, parent, settings):\n"
        "        parent.progress('reading', 0.0, None)\n"
        f"        while True: {rest}\n"
        "    worker.kinds.ingest.ingest = ingest\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", STUCK], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        started = runaways(pids)
        parent.kill()
        parent.wait()
        wait_for(lambda: all(is_gone(one) for one in (pid, *started)))


def test_a_child_that_is_stuck_in_a_c_call_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(
        tmp_path,
        monkeypatch,
        "import ctypes, worker.kinds.ingest\n"
        "def ingest(work, parent, settings):\n"
        "    parent.progress('reading', 0.0, None)\n"
        "    while True: ctypes.PyDLL(None).sleep(600)\n"
        "worker.kinds.ingest.ingest = ingest\n",
    )
    child = Child(INGEST)
    try:
        child.start(work(tmp_path, "0" * 64))
        while (message := child.receive(PATIENCE)) is None or message["kind"] != "progress":
            pass
        child.request_stop()
        assert child.receive(1.0) is None
        assert child.alive()
    finally:
        child.kill(grace_seconds=0.2)
    assert not child.alive()


def test_killing_twice_is_no_error(child: Child) -> None:
    child.kill()
    child.kill()
    assert not child.alive()


def test_handing_work_to_a_dead_child_shows_when_listening(child: Child, tmp_path: Path) -> None:
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not child.alive())
    child.start(work(tmp_path, "0" * 64))
    with pytest.raises(ChildGone):
        child.receive(PATIENCE)


def inject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run this in every child before its own code. `sys` is imported."""
    folder = tmp_path / "injected"
    folder.mkdir(exist_ok=True)
    indented = "".join(f"    {line}\n" for line in code.splitlines())
    (folder / "sitecustomize.py").write_text(f"import sys\nif 'worker.child' in sys.orig_argv:\n{indented}")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{REPOSITORY}")


PARENT = """
import json, sys, time
from app.ingestions.type import INGEST
from worker.processes.process import Child
child = Child({kind})
assert child.receive(60)["kind"] == "ready"
{work}
print(child.pid, flush=True)
{then}
"""
LAST_WORD = """
from worker.processes.process import ChildGone
try:
    while message := child.receive(60):
        last = message
except ChildGone:
    print(json.dumps(last))
"""


def test_a_child_computes_no_longer_than_its_parent_may_be_paused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(
        tmp_path,
        monkeypatch,
        "import time, worker.kinds.ingest, worker.processes.messages\n"
        "worker.processes.messages.LIFE_SIGN_EVERY = 1.0\n"  # and so it endures 5 s of silence
        "worker.kinds.ingest.ingest = lambda _, parent, __: [(parent.progress('alive', 0.0, None), time.sleep(0.1))"
        " for _ in range(6000)]\n",
    )
    monkeypatch.setenv("GRAFT_LEASE_SECONDS", "2")
    often = "import worker.processes.process; worker.processes.process.LIFE_SIGN_EVERY = 0.1"
    hand_over = "child.start({'spec': {}, 'manifest_sha256': None, 'checkpoints': [], 'scratch': ''})"
    code = PARENT.format(kind="INGEST", work=f"{often}\n{hand_over}", then=LAST_WORD)
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        time.sleep(8.0)  # and more
        assert not group_is_gone(pid)
        parent.send_signal(signal.SIGSTOP)
        wait_for(lambda: group_is_gone(pid))
        parent.send_signal(signal.SIGCONT)
        last = json.loads(parent.stdout.readline())
        assert parent.wait() == 0
    assert last["kind"] == "setback"
    assert last["body"]["reason"] == "worker_lost"
    assert "stood still for 5 s" in last["body"]["detail"]


@pytest.mark.parametrize("busy", [False, True])
def test_a_child_does_not_outlive_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    hand_over = "child.start({'spec': {}, 'manifest_sha256': None, 'checkpoints': [], 'scratch': ''})"
    inject(
        tmp_path,
        monkeypatch,
        "import time, worker.kinds.ingest\nworker.kinds.ingest.ingest = lambda *_: time.sleep(600)\n",
    )
    code = PARENT.format(kind="INGEST", work=hand_over if busy else "", then="time.sleep(600)")
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert children("ingest", parent.pid) == [pid]
        assert not group_is_gone(pid)
        parent.kill()
        parent.wait()
        wait_for(lambda: group_is_gone(pid))


def test_what_a_library_prints_does_not_break_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(
        tmp_path,
        monkeypatch,
        "import os\n"
        "import worker.kinds.ingest as module\n"
        "original = module.ingest\n"
        "def ingest(*arguments):\n"
        '    print(\'{"kind": "result", "body": {}}\', flush=True)\n'
        "    os.write(1, b'straight to the descriptor\\n')\n"
        "    return original(*arguments)\n"
        "module.ingest = ingest\n",
    )
    child = Child(INGEST)
    try:
        child.start(work(tmp_path / "scratch", put_archive(tmp_path)))
        messages = receive_all(child)
    finally:
        child.kill()
    assert messages[-1]["body"]["classes"] == ["ants", "bees"]
    assert [message["kind"] for message in messages].count("result") == 1


def test_a_child_is_told_no_secret_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRAFT_DATABASE_URL", "GRAFT_REDIS_URL", "GRAFT_API_KEY"):
        monkeypatch.setenv(name, "not-for-children")
    monkeypatch.setenv("GRAFT_STORAGE_URL", "file:///kept")
    child = Child(INGEST)
    try:
        assert child.receive(PATIENCE) is not None
        environment = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
    finally:
        child.kill()
    assert [one for one in environment if b"not-for-children" in one] == []
    assert b"GRAFT_STORAGE_URL=file:///kept" in environment
