"""A training that several processes of one machine share: the child is the first of them and starts the others.

They are of its process group, so that whoever ends the child ends them all, and they end by themselves with it.
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

from app.vision import ranks
from app.vision.config import TrainConfig
from app.vision.errors import RankLost
from worker.messages import encode
from worker.rank import Part

_LAST_WORDS = 10.0  # seconds in which the first process may say why another one ended


@contextmanager
def sharing(
    count: int,
    config: TrainConfig,
    manifest_sha256: str,
    weights: Path | None,
    scratch: Path,
) -> Iterator[None]:
    """Meanwhile `count` processes train as one, this being the first. Gone without a word, one takes this one along.

    That is: if the kernel kills one for its memory, this process ends in the same way, which its parent understands.
    """
    if count == 1:
        yield
        return
    store = ranks.meeting_place(0, count)
    others = [_start(rank, count, store.port, config, manifest_sha256, weights, scratch) for rank in range(1, count)]
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True).start()
    try:
        with ranks.joined(store, 0, count):
            yield
    except RankLost:
        _follow(others)
        raise
    finally:
        over.set()
        for process in others:
            _end(process)


def _start(
    rank: int,
    count: int,
    port: int,
    config: TrainConfig,
    manifest_sha256: str,
    weights: Path | None,
    scratch: Path,
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-m", "worker.rank"], stdin=subprocess.PIPE)
    part = Part(
        rank=rank,
        ranks=count,
        port=port,
        config=config.to_dict(),
        manifest_sha256=manifest_sha256,
        weights=str(weights) if weights else None,
        scratch=str(scratch),
    )
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it is gone, which `_watch` sees
        process.stdin.write(encode(part))
        process.stdin.flush()
    return process


def _watch(others: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process if another one has ended badly and it does not notice: it may be waiting for them to start."""
    while not over.wait(0.5):
        if any(process.poll() not in (None, 0) for process in others) and not over.wait(_LAST_WORDS):
            _follow(others)


def _follow(others: Sequence[subprocess.Popen[bytes]]) -> None:
    """End as the first of them did that has ended badly."""
    deadline = time.monotonic() + _LAST_WORDS
    while time.monotonic() < deadline:
        for process in others:
            if status := process.poll():
                if status < 0:
                    os.kill(os.getpid(), signal.SIGKILL if status == -signal.SIGTERM else -status)
                    time.sleep(_LAST_WORDS)
                os._exit(abs(status))
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
