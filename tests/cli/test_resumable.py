"""`graft datasets push` sends large files in pieces, and goes on where a connection broke."""

import hashlib
import io
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from app.cli import resumable
from app.cli.client import Client
from app.cli.errors import CommandError
from app.core.settings import Settings
from tests.support.images import folder_zip
from tests.support.services import Service, open_service

ARCHIVE = folder_zip({"ants": 4, "bees": 4})
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


@pytest.fixture
def server(settings: Settings, sqlite_url: str) -> Iterator[Service]:
    with open_service(settings, "socket") as service:
        yield service


@pytest.fixture
def breaking(server: Service) -> Iterator[int]:
    """The port of a relay to the service that hangs up on each of the first connections in the middle."""
    budgets = iter([4000, 12_000, 0, 9000])
    listener = socket.create_server(("127.0.0.1", 0))

    def relay(caller: socket.socket, budget: float) -> None:
        with caller, socket.create_connection(("127.0.0.1", server.port), timeout=60) as service:
            back = threading.Thread(target=copy, args=(service, caller))
            back.start()
            while budget > 0 and (data := caller.recv(1000)):
                service.sendall(data)
                budget -= len(data)
            with suppress(OSError):
                service.shutdown(socket.SHUT_WR if budget > 0 else socket.SHUT_RDWR)
            back.join()

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1000):
                target.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                caller, _ = listener.accept()
                threading.Thread(target=relay, args=(caller, next(budgets, float("inf"))), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def client(server: Service, port: int) -> Client:
    settings = Settings(home=server.settings.home, _env_file=None)  # type: ignore[call-arg]
    return Client(f"http://127.0.0.1:{port}", server.key, settings)


def test_a_file_arrives_whole_over_a_connection_that_breaks(server: Service, breaking: int) -> None:
    api = client(server, breaking)
    try:
        dataset = resumable.send(
            api, io.BytesIO(ARCHIVE), len(ARCHIVE), SHA256, {"name": "pets", "seed": 3}, pause=0.05
        )
        assert (dataset["name"], dataset["upload"]["bytes"]) == ("pets", len(ARCHIVE))
    finally:
        api.close()


def test_what_is_refused_is_one_line(server: Service) -> None:
    api = client(server, server.port)
    try:
        with pytest.raises(CommandError, match="SHA-256"):
            resumable.send(api, io.BytesIO(b"x" * 100), 100, SHA256, {"name": "pets"})
        with pytest.raises(CommandError, match="seed"):
            resumable.send(api, io.BytesIO(ARCHIVE), len(ARCHIVE), SHA256, {"name": "pets", "seed": -1})
    finally:
        api.close()
