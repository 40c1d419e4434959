"""A training that several processes share, of one machine or of several: a child is the first of its machine's.

It starts the others of its machine. They are of its process group, so that whoever ends the child ends them all, and
they end by themselves with it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.core.stops import stops_held
from app.vision.errors import RankLost
from app.vision.runtime import ranks
from app.vision.settings.config import TrainConfig
from worker.child.parent import Parent
from worker.machines.rank import LOST_ANOTHER, Part
from worker.processes.messages import Place, encode

_LAST_WORDS = 10.0  # seconds in which the first process may say why another one ended


@contextmanager
def sharing(
    processes: int,
    place: Place | None,
    parent: Parent,
    config: TrainConfig,
    manifest_sha256: str,
    weights: Path | None,
    scratch: Path,
) -> Iterator[None]:
    """Let so many processes of each machine train as one, this being the first of its machine's.

    With a `place`, the parent is told where the machines meet (by the leader) and that they have met. If a process of
    this machine is gone without a word, it takes this one along: where the kernel kills one for its memory, this one
    ends in the same way, which its parent understands. Raises RankLost where it was another machine's.
    """
    machines, number = (place["machines"], place["number"]) if place else (1, 0)
    count, first = processes * machines, processes * number
    if count == 1:
        yield
        return
    host, port = _meeting(place)
    store = ranks.meeting_place(port, count, host)
    if place is not None and number == 0:
        parent.meeting(store.port)
    parts = [
        Part(
            rank=rank,
            ranks=count,
            host=host,
            port=store.port,
            config=config.to_dict(),
            manifest_sha256=manifest_sha256,
            weights=str(weights) if weights else None,
            scratch=str(scratch),
        )
        for rank in range(first + 1, first + processes)
    ]
    others = [_start(part) for part in parts]
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True).start()
    try:
        with ranks.joined(store, first, count):
            if place is not None:
                parent.met()
            yield
    except RankLost:
        _follow(others)
        raise
    finally:
        over.set()
        for process in others:
            _end(process)


def _meeting(place: Place | None) -> tuple[str, int]:
    """Return host and port where all meet, 0 to make it here; and tell the libraries which network to use."""
    if place is None:
        return "127.0.0.1", 0
    if place["interface"] is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", place["interface"])
        os.environ.setdefault("NCCL_SOCKET_IFNAME", f"={place['interface']}")  # this one, not all that begin so
    host, _, port = (place["meeting"] or "127.0.0.1:0").rpartition(":")
    return host, int(port)


def _start(part: Part) -> subprocess.Popen[bytes]:
    with stops_held():
        process = subprocess.Popen([sys.executable, "-m", "worker.machines.rank"], stdin=subprocess.PIPE)
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it is gone, which `_watch` sees
        process.stdin.write(encode(part))
        process.stdin.flush()
    return process


def _watch(others: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process if another one has ended badly and it does not notice: it may be waiting for them to start."""
    while not over.wait(0.5):
        if any(process.poll() not in (None, 0, LOST_ANOTHER) for process in others) and not over.wait(_LAST_WORDS):
            _follow(others)


def _follow(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """End as the first of this machine's others did that has ended badly, if it was one of them."""
    deadline = time.monotonic() + _LAST_WORDS
    while time.monotonic() < deadline:
        ended = [process.poll() for process in others]
        for status in ended:
            if status and status != LOST_ANOTHER:
                if status < 0:
                    os.kill(os.getpid(), signal.SIGKILL if status == -signal.SIGTERM else -status)
                    time.sleep(_LAST_WORDS)
                os._exit(abs(status))
        if None not in ended:
            return
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that has done its part; make an end of one that has not."""
    assert process.stdin is not None
    try:
        process.wait(_LAST_WORDS)
    except subprocess.TimeoutExpired:
        process.kill()
    with contextlib.suppress(OSError):
        process.stdin.close()
    process.wait()
