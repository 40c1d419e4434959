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
from tests.support.child_work import (
    RUNAWAYS,
    Run,
    doing,
    ingest_and_print,
    rest,
    rest_in_c,
    run_away,
    run_away_and_rest_in_c,
    start_one_that_ignores_term,
    tell,
)
from tests.support.images import REPOSITORY, folder_zip
from tests.support.processes import children, group_is_gone
from tests.support.waiting import PATIENCE, wait_for
from worker.processes.messages import LIFE_SIGN_EVERY, Work
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


def begun(child: Child) -> Child:
    """The child, once it is at its work."""
    child.start(Work(spec={}, manifest_sha256=None, checkpoints=[], scratch=""))
    while (message := child.receive(PATIENCE)) is None or message["kind"] != "progress":
        pass
    return child


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which processes that a child starts write down their ids."""
    monkeypatch.setenv("GRAFT_TEST_MARKS", str(tmp_path))
    (tmp_path / "pids").touch()
    return tmp_path / "pids"


def test_kill_ends_the_whole_group(pids: Path) -> None:
    """Also what the child started: here a process that ignores TERM and holds the child's pipes open."""
    child = Child(doing(INGEST, start_one_that_ignores_term))
    try:
        begun(child)
        (stubborn,) = started_ones(pids, 1)
        assert os.getpgid(stubborn) == os.getpgid(child.pid) == child.pid != os.getpgid(0)
    finally:
        child.kill(grace_seconds=0.2)
    assert not child.alive()
    wait_for(lambda: group_is_gone(child.pid))


def started_ones(pids: Path, count: int = len(RUNAWAYS)) -> list[int]:
    found: list[str] = wait_for(lambda: len(lines := pids.read_text().split()) == count and lines)
    return [int(pid) for pid in found]


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def test_kill_ends_what_has_run_away(pids: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    child = Child(doing(INGEST, run_away))
    try:
        begun(child)
        started = started_ones(pids)
        assert not any(is_gone(pid) or os.getsid(pid) == child.pid for pid in started)
    finally:
        child.kill(grace_seconds=0.2)
    try:
        assert all(is_gone(pid) for pid in started)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("run", [run_away, run_away_and_rest_in_c], ids=lambda run: run.__name__)
def test_a_killed_worker_leaves_nothing_behind(pids: Path, run: Run) -> None:
    """Neither what a child started that sees its pipe close and goes, nor a child that is stuck in a C call with the
    interpreter's lock and cannot see it."""
    code = "from worker.processes.reaper import Reaper\nreaper = Reaper()\n" + parent_of(
        run, HAND_OVER + BEGUN, FOR_EVER
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        started = started_ones(pids)
        parent.kill()
        parent.wait()
        wait_for(lambda: all(is_gone(one) for one in (pid, *started)))


def test_a_child_that_is_stuck_in_a_c_call_is_killed() -> None:
    child = Child(doing(INGEST, rest_in_c))
    try:
        begun(child).request_stop()
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


HAND_OVER = "child.start({'spec': {}, 'manifest_sha256': None, 'checkpoints': [], 'scratch': ''})\n"
BEGUN = 'assert child.receive(60)["kind"] == "progress"\n'
FOR_EVER = "time.sleep(600)"


def parent_of(run: Run, work: str, then: str) -> str:
    """A program that has a child do that, prints the child's id, and goes on."""
    return f"""
import json, sys, time
from app.ingestions.type import INGEST
from tests.support.child_work import doing, {run.__name__}
from worker.processes.process import Child
child = Child(doing(INGEST, {run.__name__}))
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


def test_a_child_computes_no_longer_than_its_parent_may_be_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_LEASE_SECONDS", "2")  # less than five signs of life, and so those count
    code = parent_of(tell, HAND_OVER, LAST_WORD)
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        time.sleep(5 * LIFE_SIGN_EVERY + 2.0)  # a parent that is at work is not silent
        assert not group_is_gone(pid)
        parent.send_signal(signal.SIGSTOP)
        wait_for(lambda: group_is_gone(pid))
        parent.send_signal(signal.SIGCONT)
        last = json.loads(parent.stdout.readline())
        assert parent.wait() == 0
    assert last["kind"] == "setback"
    assert last["body"]["reason"] == "worker_lost"
    assert f"stood still for {5 * LIFE_SIGN_EVERY:g} s" in last["body"]["detail"]


@pytest.mark.parametrize("busy", [False, True])
def test_a_child_does_not_outlive_its_parent(busy: bool) -> None:
    code = parent_of(rest, HAND_OVER if busy else "", FOR_EVER)
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert children("ingest", parent.pid) == [pid]
        assert not group_is_gone(pid)
        parent.kill()
        parent.wait()
        wait_for(lambda: group_is_gone(pid))


def test_what_a_library_prints_does_not_break_the_pipe(tmp_path: Path) -> None:
    child = Child(doing(INGEST, ingest_and_print))
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
