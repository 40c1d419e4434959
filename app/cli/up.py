"""Run the embedded service of `graft up`: the API in this process, and the worker in a child that is kept alive."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import uvicorn
from rich.console import Console

from app.api.app import create_app
from app.auth import service as auth
from app.auth.schemas import Scope
from app.cli.client import save
from app.cli.errors import CommandError
from app.core.database import Database, configured_database
from app.core.errors import Unauthenticated
from app.core.home import make_private
from app.core.migrations import migrate
from app.core.settings import Settings

_WORKER_STOPS_WITHIN = 30.0  # seconds: a running job is given time to keep its state


def up(settings: Settings) -> None:
    """Run the API and the worker until Ctrl-C or SIGTERM."""
    console = Console(stderr=True)
    make_private(settings)
    # torch makes this folder when it is imported, here and in the worker; not beside everybody's temporary files.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.home.absolute() / "torchinductor"))
    with _OnlyOne(settings.home / "up.lock"), _bind(settings.host, settings.port) as listener:
        url = f"http://{settings.host}:{listener.getsockname()[1]}"
        database = configured_database(settings)
        migrate(database)
        save(settings.client_file, url, _local_key(database, settings))
        database.close()

        server = uvicorn.Server(
            uvicorn.Config(create_app(settings), log_config=None, access_log=False, timeout_graceful_shutdown=3)
        )
        # uvicorn raises the signal that stopped it once more when it is done; the worker is still to be stopped then.
        signal.signal(signal.SIGTERM, lambda *_: None)
        worker = _WorkerProcess(settings)
        worker.start()
        threading.Thread(target=_announce, args=(server, console, url, settings.client_file), daemon=True).start()
        try:
            server.run(sockets=[listener])
        except KeyboardInterrupt:
            pass
        finally:
            worker.stop()
            console.print("Stopped. Jobs that were running resume with the next 'graft up'.")


class _OnlyOne:
    """A lock of the folder for one service. Two services would delete each other's scratch files."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(
                f"A service already runs in {self._path.parent}. Use that one, or choose another folder: --home PATH."
            ) from None

    def __exit__(self, *_: object) -> None:
        assert self._file is not None
        self._file.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        reason = f"{host}:{port} cannot be used: {error.strerror}."
        raise CommandError(f"{reason} Choose another port; --port 0 takes a free one.") from None


def _local_key(database: Database, settings: Settings) -> str:
    """Return the key that `graft` keeps for this folder, and create it the first time."""
    try:
        saved: str = json.loads(settings.client_file.read_text())["key"]
        with database.reading() as session:
            auth.authenticate(session, f"Bearer {saved}")
        return saved
    except (OSError, ValueError, KeyError, Unauthenticated):
        with database.writing() as session:
            workspace = auth.ensure_workspace(session)
            return auth.create_key(session, workspace.id, "graft up", [Scope.admin])[1]


def _announce(server: uvicorn.Server, console: Console, url: str, client_file: Path) -> None:
    while not server.started:
        time.sleep(0.05)
    console.print(f"Graftwork is ready at [bold]{url}[/] (API documentation: {url}/docs).", soft_wrap=True)
    console.print(
        f"'graft' finds the service by itself. For curl, 'graft env' prints address and key (from {client_file}). "
        "Ctrl-C stops the service.",
        soft_wrap=True,
    )


class _WorkerProcess:
    """The worker's process, which is started again if it dies; it stops when its stdin is closed."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {**os.environ, "GRAFT_HOME": str(settings.home.absolute())}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _keep_alive(self) -> None:
        while not self._stopping.is_set():
            process = subprocess.Popen(
                [sys.executable, "-m", "worker", "--with-parent"], stdin=subprocess.PIPE, env=self._environment
            )
            while process.poll() is None and not self._stopping.wait(0.2):
                pass
            assert process.stdin is not None
            process.stdin.close()  # the worker stops when its stdin ends
            try:
                process.wait(_WORKER_STOPS_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._stopping.wait(1.0)
