"""This module takes images in, in processes of their own, bounded in memory and processor time, that may die of what
they read."""

import json
import queue
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from itertools import accumulate, pairwise
from types import TracebackType
from typing import IO, Any, Self

from PIL import Image

from app.core.stops import STOPS, stops_held
from app.datasets.intake.intake import File, IntakeLimits, Note, RejectedFile, StoredImage, Taken, take_in_all
from app.datasets.intake.similarity import perceptual_hashes, sketch

_MEMORY_BYTES = 4 * 2**30  # of address space: several copies of the largest image
# Of many cores numpy's threads would take the address space that is meant for images; its matrices here are tiny.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_TOLD = [one.name for one in fields(StoredImage) if one.name not in ("data", "notes")]
_REMEDY = "Export it again from its source in a smaller size, or leave it out."


class IntakePool:
    """A pool does `take_in` in several processes, for as many threads. A process that dies costs its image and is
    replaced."""

    def __init__(self, limits: IntakeLimits, processes: int, python: str = sys.executable) -> None:
        self._limits = limits
        self._python = python
        self._processes = processes
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        self._unproved: set[subprocess.Popen[bytes]] = set()  # they have not said that they are ready

    def __enter__(self) -> Self:
        try:
            for _ in range(self._processes):  # all at once, and whoever opens the pool can go on meanwhile
                self._idle.put(self.start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()

    def take_in(self, data: bytes, name: str) -> StoredImage:
        """Do `intake.take_in`; also raises `RejectedFile` (`image_too_costly`) where the process died of the image."""
        (taken,) = self.take_in_all([(data, name)])
        if isinstance(taken, RejectedFile):
            raise taken
        return taken

    def take_in_all(self, files: Sequence[File]) -> list[Taken]:
        """Do `intake.take_in_all`, with `image_too_costly` where the process died of an image.

        All are handed over at one go, which costs small images less than one by one. Where the process dies of one of
        them, the others are not its victims.
        """
        taken = self._ask(files)
        if isinstance(taken, list):
            return taken
        return [taken] if len(files) == 1 else [one for file in files for one in self.take_in_all([file])]

    def _ask(self, files: Sequence[File]) -> list[Taken] | RejectedFile:
        """Return what a process answers, or why it died."""
        process = self._idle.get()
        try:
            if process is None:
                process = self.start()
            requests, answers = process.stdin, process.stdout
            assert requests is not None
            assert answers is not None
            if process in self._unproved:
                self._unproved.remove(process)
                if not answers.readline():  # no image has been near it, so it is no image's fault
                    code, process = process.wait(), None
                    raise RuntimeError(f"the process that reads images cannot start (exit status {code})")
            try:
                _send(requests, {"names": [name for _, name in files]}, *(data for data, _ in files))
                return _taken(*_receive(answers), files)
            except (OSError, EOFError):
                code, process = process.wait(), None
                return _died(code, self._limits)
        finally:
            self._idle.put(process)

    def start(self) -> "subprocess.Popen[bytes]":
        """Start one more process; the pool ends it."""
        command = [self._python, "-I", "-m", __name__, json.dumps(asdict(self._limits))]
        with stops_held():
            # With nothing of this process's environment: it holds secrets, and what is read may be hostile.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT)
        self._all.append(process)
        self._unproved.add(process)
        return process


def _answer(taken: Sequence[Taken], files: Sequence[File]) -> tuple[dict[str, Any], list[bytes]]:
    """Return the message that says this; `_taken` reads it. Bytes that are kept as they were sent are not sent back."""
    replies = [
        {"rejected": [one.code, one.reason, one.remedy]}
        if isinstance(one, RejectedFile)
        else {name: getattr(one, name) for name in _TOLD}
        | {"notes": [asdict(note) for note in one.notes], "as_sent": one.data is data}
        for one, (data, _) in zip(taken, files, strict=True)
    ]
    new = [
        one.data
        for one, (data, _) in zip(taken, files, strict=True)
        if isinstance(one, StoredImage) and one.data is not data
    ]
    return {"taken": replies}, new


def _taken(head: dict[str, Any], parts: list[bytes], files: Sequence[File]) -> list[Taken]:
    new = iter(parts)

    def kept(one: dict[str, Any], sent: bytes) -> StoredImage:
        data = sent if one.pop("as_sent") else next(new)
        return StoredImage(**one | {"notes": tuple(Note(**note) for note in one["notes"])}, data=data)

    return [
        RejectedFile(*one["rejected"]) if "rejected" in one else kept(one, sent)
        for one, (sent, _) in zip(head["taken"], files, strict=True)
    ]


def _died(code: int, limits: IntakeLimits) -> RejectedFile:
    if code == -signal.SIGXCPU:
        reason = f"It takes more than {limits.cpu_seconds} s of processor time to decode."
    else:
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        reason = f"The process that decoded it died of it ({how})."
    return RejectedFile("image_too_costly", reason, _REMEDY)


def _send(pipe: IO[bytes], head: dict[str, object], *parts: bytes) -> None:
    line = json.dumps(head | {"sizes": [len(part) for part in parts]}).encode() + b"\n"
    pipe.write(b"".join([line, *parts]))
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Return head and parts of a message, all of it. Raises EOFError where it ends before."""
    line = pipe.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    head = json.loads(line)
    ends = [0, *accumulate(head.pop("sizes"))]
    data = pipe.read(ends[-1])
    if len(data) != ends[-1]:
        raise EOFError
    return head, [data[begin:end] for begin, end in pairwise(ends)]


def _serve(limits: IntakeLimits) -> None:
    """Serve as the pool's process: one group of images after another until its stdin ends."""
    # The parent ends it by closing the pipe; until here these were held, see `stops_held`.
    for stop in STOPS:
        signal.signal(stop, signal.SIG_IGN)
    # Imports what reading needs, before files may not be opened for it.
    perceptual_hashes([sketch(Image.new("L", (32, 32)))])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(b"ready\n")
    answers.flush()
    while True:
        try:
            head, files = _receive(requests)
        except EOFError:
            return
        # For all of them: who dies with several has each to itself next.
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + limits.cpu_seconds + 1, most))
        named = [*zip(files, head["names"], strict=True)]
        head, data = _answer(take_in_all(named, limits), named)
        _send(answers, head, *data)


if __name__ == "__main__":
    _serve(IntakeLimits(**json.loads(sys.argv[1])))
