"""A child process as its parent sees it: started ahead of its job, talked to over a pipe, ended with its group."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid

from app.core.logging import log
from app.jobs.types import JobType
from worker.processes import process_tree
from worker.processes.devices import visible_device
from worker.processes.messages import LIFE_SIGN, LIFE_SIGN_EVERY, Message, Work, decode, encode

# The child needs none of these: it has no business with the database, the broker, or the API.
_WITHHELD = ("GRAFT_DATABASE_URL", "GRAFT_REDIS_URL", "GRAFT_API_KEY")


class ChildGone(Exception):
    """The child ended without a last word. `returncode` is negative for a signal."""

    def __init__(self, returncode: int) -> None:
        super().__init__(f"exit status {returncode}")
        self.returncode = returncode


class Child:
    """One exec'd process in a session of its own, so that its group can be ended as a whole."""

    def __init__(self, kind: JobType, device: int | None = None, memory_bytes: int | None = None) -> None:
        """Start a process for a job of that kind, on that GPU, whose data may take so many bytes of memory."""
        environment = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
        self._mark = environment[process_tree.VARIABLE] = f"{process_tree.WORKER}.{uuid.uuid4().hex}"
        # cuBLAS gives the same sums every time only with a workspace of fixed size.
        environment.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible_device(device, environment.get("CUDA_VISIBLE_DEVICES"))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.child", kind.name, kind.run, *([str(memory_bytes)] if memory_bytes else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._over = threading.Event()
        threading.Thread(target=self._read, name=f"child-{self._process.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def start(self, work: Work) -> None:
        """Hand over the job. A child that is gone already shows in `receive`."""
        self._send(encode(work))
        threading.Thread(target=self._live, name=f"life-{self._process.pid}", daemon=True).start()

    def receive(self, timeout: float) -> Message | None:
        """Return the next message, or None after `timeout` seconds. Raises `ChildGone` after the last one."""
        try:
            message = self._messages.get(timeout=max(timeout, 0.0))
        except queue.Empty:
            return None
        if message is None:
            raise ChildGone(self._process.wait())
        return message

    def request_stop(self) -> None:
        """Ask it to keep what is worth keeping and end."""
        self._signal(signal.SIGTERM)

    def kill(self, grace_seconds: float = 0.0) -> None:
        """End the child and all that came from it: TERM and some time where there is grace, then KILL.

        Returns when they are gone.
        """
        self._over.set()
        known = process_tree.members(self._mark, self._process.pid)
        if grace_seconds > 0:
            self.request_stop()
            deadline = time.monotonic() + grace_seconds
            while self.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
        # Also after a clean exit: what the child started may outlive it.
        self._signal(signal.SIGKILL)
        if not process_tree.end_family(self._mark, self._process.pid, known):
            log.warning("processes_not_gone", child=self._process.pid)
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _live(self) -> None:
        """Send signs of life, in a thread of its own: the child ends only where all of this process stands still."""
        while not self._over.wait(LIFE_SIGN_EVERY):
            self._send(LIFE_SIGN)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it is gone, or `kill` has closed the pipe
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:  # closed here, for whoever else holds the pipe's end would hold up kill()
            for line in lines:
                self._messages.put(decode(line))
        self._messages.put(None)
