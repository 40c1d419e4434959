"""The service's processes: kept alive as a supervisor keeps them, and found again in /proc with all they started."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RESTART_AFTER = 1.0  # seconds that a supervisor waits before it starts a dead process again


class Supervised:
    """A process that is started again whenever it has died; what it prints goes to `log`."""

    def __init__(self, name: str, command: list[str], log: Path, environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._command, self._log, self._environment, self._folder = command, log, dict(environment), folder
        self._process: subprocess.Popen[bytes] | None = None
        self._died_at: float | None = None
        self._waited = False

    @property
    def pid(self) -> int | None:
        """None while it is dead."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._died_at = None

    def look_after(self) -> None:
        """Start it again if it has been dead for a while."""
        if self.pid is not None:
            return
        if self._died_at is None:
            self._died_at = time.monotonic()
        elif time.monotonic() - self._died_at >= RESTART_AFTER:
            self.start()

    def stop(self, patience: float = 60.0) -> None:
        """SIGTERM; SIGKILL if it is still there after `patience` seconds."""
        if self._process is None:
            return
        send(self._process.pid, signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True)
class Found:
    """One process as /proc shows it. `state` is a letter: T stopped, Z dead and not yet waited for."""

    pid: int
    parent: int
    state: str
    arguments: tuple[str, ...]

    def runs(self, *words: str) -> bool:
        """Whether its command line holds these words, in this order and next to each other."""
        width = len(words)
        return any(self.arguments[i : i + width] == words for i in range(len(self.arguments)))

    @property
    def computes(self) -> bool:
        return self.runs("-m", "worker.child")


def processes_of(home: Path) -> list[Found]:
    """Every process that has this home among its settings, the dead ones left out."""
    mark = f"GRAFT_HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has ended since
            continue
        if state not in "ZX":
            found.append(Found(int(folder.name), int(parent), state, tuple(arguments)))
    return found


def send(pid: int, number: signal.Signals) -> None:
    """A signal to one process, if it still lives."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
