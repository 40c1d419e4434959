"""Takes images in in processes of their own, bounded in memory and processor time, that may die of what they read."""

import json
import queue
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, replace
from types import TracebackType
from typing import IO, Any, Self

from PIL import Image

from app.datasets.intake import IntakeLimits, Note, RejectedImage, StoredImage, take_in
from app.datasets.similarity import perceptual_hash

_MEMORY_BYTES = 4 * 2**30  # of address space: several copies of the largest image
_REMEDY = "Export it again from its source in a smaller size, or leave it out."


class IntakePool:
    """`take_in` of several processes, for as many threads. A process that dies costs its image and is replaced."""

    def __init__(self, limits: IntakeLimits, processes: int) -> None:
        self._limits = limits
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        for _ in range(processes):
            self._idle.put(None)  # started when it is first needed

    def __enter__(self) -> Self:
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
        """As `intake.take_in`; also raises `RejectedImage` (`image_too_costly`) where the process died of the image."""
        process = self._idle.get()
        try:
            if process is None:
                process = self._start()
            try:
                return _ask(process, data, name)
            except (OSError, EOFError):
                code, process = process.wait(), None
                raise _died(code, self._limits) from None
        finally:
            self._idle.put(process)

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-I", "-m", __name__, json.dumps(asdict(self._limits))]
        # With nothing of this process's environment: it holds secrets, and what is read may be hostile.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={})
        self._all.append(process)
        return process


def _ask(process: "subprocess.Popen[bytes]", data: bytes, name: str) -> StoredImage:
    assert process.stdin is not None
    assert process.stdout is not None
    _send(process.stdin, {"name": name}, data)
    answer, kept = _receive(process.stdout)
    if "rejected" in answer:
        raise RejectedImage(*answer["rejected"])
    answer["notes"] = tuple(Note(**note) for note in answer["notes"])
    return StoredImage(data=kept, **answer)


def _died(code: int, limits: IntakeLimits) -> RejectedImage:
    if code == -signal.SIGXCPU:
        reason = f"It takes more than {limits.cpu_seconds} s of processor time to decode."
    else:
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        reason = f"The process that decoded it died of it ({how})."
    return RejectedImage("image_too_costly", reason, _REMEDY)


def _send(pipe: IO[bytes], head: dict[str, object], body: bytes) -> None:
    pipe.write(json.dumps(head | {"size": len(body)}).encode() + b"\n")
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    line = pipe.readline()
    head = json.loads(line) if line.endswith(b"\n") else {"size": 0}
    size = head.pop("size")
    body = pipe.read(size)
    if not line.endswith(b"\n") or len(body) < size:
        raise EOFError
    return head, body


def _serve(limits: IntakeLimits) -> None:
    """The process: one image after another until its stdin ends."""
    # The parent ends it by closing the pipe; a stop meant for the parent's group must not cost an image.
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.SIG_IGN)
    perceptual_hash(Image.new("L", (32, 32)))  # imports what reading needs, before files may not be opened for it
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            head, data = _receive(requests)
        except EOFError:
            return
        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + limits.cpu_seconds + 1, most))
        try:
            kept = take_in(data, str(head["name"]), limits)
        except RejectedImage as rejected:
            _send(answers, {"rejected": [rejected.code, rejected.reason, rejected.remedy]}, b"")
        else:
            answer = asdict(replace(kept, data=b""))
            del answer["data"]
            _send(answers, answer, kept.data)


if __name__ == "__main__":
    _serve(IntakeLimits(**json.loads(sys.argv[1])))
