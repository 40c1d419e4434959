"""Lets the processes of a command that torchrun has started several times train as one. Imports torch late."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def is_shared() -> bool:
    """Return whether this process is one of several, as WORLD_SIZE says."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks() -> bool:
    """Return whether this is the process that reports for all of them, known also before they have met."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def launched() -> Iterator[None]:
    """Meanwhile this process is one of those that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT speak of, if any."""
    if not is_shared():
        yield
        return
    from app.vision.runtime import ranks

    store, rank, count = ranks.announced_meeting_place()
    with ranks.joined(store, rank, count):
        yield


@contextmanager
def shared_folder(out: Path) -> Iterator[Path]:
    """Give a scratch folder in `out` to the processes of one machine, also where machines share its disk."""
    from app.vision.runtime import ranks

    folder = out / ranks.agree(f".work-{os.getpid()}") / socket.gethostname()
    folder.mkdir(parents=True, exist_ok=True)
    removes = ranks.neighbours(folder)[0] == ranks.number()
    try:
        yield folder
    finally:
        if removes:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # another machine's is in it
                folder.parent.rmdir()
