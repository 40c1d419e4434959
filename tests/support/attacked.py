"""A service to attack: `uvicorn` in a process of its own, with two workspaces, and what is seen of it from outside."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.auth import service as auth
from app.auth.schemas import Scope
from app.core.database import Database
from app.core.settings import Settings
from app.storage.configured import configured_store
from tests.support.images import REPOSITORY
from tests.support.servers import free_port, running
from tests.support.stages import Stage

SIZE = int(os.environ.get("GRAFT_TEST_ATTACK", "1"))
GROWTH = 64 << 20  # bytes that an attack may make the service grow by
ANSWERS_WITHIN = 30.0  # seconds; nothing here takes one, and a busy machine may


@dataclass(frozen=True)
class Heard:
    """An answer as it came over the socket."""

    status: int
    headers: dict[str, str]
    body: bytes
    took: float

    @property
    def problem(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.body)
        return found


@dataclass
class Attacked:
    """A running service: its port, its process, its log, and keys by who has them."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    keys: dict[str, str | None]

    def ask(self, head: str, body: bytes = b"", key: str | None = None, **headers: str) -> Heard:
        """Send `METHOD PATH` with headers (`content_length`), then the body, and read the answer."""
        lines = {"Host": "x", "Connection": "close"} | {name.replace("_", "-"): one for name, one in headers.items()}
        if key is not None:
            lines["Authorization"] = f"Bearer {key}"
        if "content-length" not in map(str.lower, lines) and body:
            lines["Content-Length"] = str(len(body))
        text = f"{head} HTTP/1.1\r\n" + "".join(f"{name}: {one}\r\n" for name, one in lines.items()) + "\r\n"
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWERS_WITHIN) as connection:
            connection.sendall(text.encode("latin-1") + body)
            return _heard(connection, head.startswith("HEAD "), began)

    def healthy(self) -> float:
        """Return the seconds that the health check took; it has to answer."""
        began = time.monotonic()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=ANSWERS_WITHIN) as answer:
            assert answer.status == 200
        return time.monotonic() - began

    @contextmanager
    def stays_small(self) -> Iterator[None]:
        """Memory grows by less than the bound, nothing crashes, and the service is healthy afterwards."""
        self.healthy()
        before, said = self.memory(), len(self.log.read_text())
        yield
        self.healthy()
        assert self.memory() - before < GROWTH
        assert "Traceback" not in self.log.read_text()[said:]

    def memory(self) -> int:
        """Return the bytes of memory that the process has."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def _heard(connection: socket.socket, is_head: bool, began: float) -> Heard:
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        assert data, f"the connection was closed after {received!r}"
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): one.strip() for name, _, one in (line.partition(":") for line in lines)}
    length = 0 if is_head else int(headers.get("content-length", 0))
    while len(body) < length:
        data = connection.recv(65536)
        assert data, "the answer broke off"
        body += data
    return Heard(int(first.split()[1]), headers, body, time.monotonic() - began)


@contextmanager
def attack(migrated_sqlite: Path, home: Path) -> Iterator[Attacked]:
    """Run a service in a process of its own, on a copy of a database that is migrated."""
    shutil.copy(migrated_sqlite, home / "graftwork.db")
    settings = Settings(home=home, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
    database = Database(settings.sqlalchemy_url)
    stage = Stage(settings, database, configured_store(settings))
    ours, others = stage.workspace(), stage.workspace()
    with database.writing() as session:
        leaver, revoked = auth.create_key(session, ours.id, "leaver", [Scope.admin])
        session.flush()
        auth.revoke_key(session, ours.id, leaver.id)
    database.close()
    keys: dict[str, str | None] = {str(scope): secret for scope, secret in ours.secrets.items()}
    keys |= {"nobody": None, "garbage": "gw_" + "x" * 43, "revoked": revoked, "other": others.secrets[Scope.admin]}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFT_")}
    environment |= {
        "GRAFT_HOME": str(home),
        "GRAFT_ENGINES": "torch",
        "GRAFT_MAX_UPLOAD_BYTES": str(64 << 20),
        "GRAFT_LOG_FORMAT": "json",
    }
    port = free_port()
    command = [sys.executable, "-m", "app.cli", "api", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, home / "log", cwd=REPOSITORY, env=environment) as process:
        found = Attacked(port, process, home / "log", keys)
        deadline = time.monotonic() + 120
        while True:
            try:
                found.healthy()
                break
            except OSError:
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield found
