"""Ring for workers after a job is committed. A hint and nothing more: workers also look by themselves.

The ring is a Celery message (https://docs.celeryq.dev/en/stable/internals/protocol.html, version 2), published with
kombu, Celery's own messaging library, so that the API does not import the worker.
"""

import os
import queue
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import kombu
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.core.logging import log
from app.core.settings import Settings

MOMENT = 0.01  # seconds that a ring may hold its caller up

TASK = "graftwork.run_jobs"  # the name under which the worker registers its task
QUEUE = "graftwork"
_QUEUE = kombu.Queue(QUEUE, routing_key=QUEUE)


class Doorbell(Protocol):
    def ring(self, kind: str) -> None:
        """Tell workers that a job of this kind waits. Returns within a moment and never raises."""


class FifoDoorbell:
    """Rings in the embedded service: through a named pipe, on which the worker beside it listens."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def ring(self, kind: str) -> None:
        # Nobody listens, or whoever does has not read what was rung before: it looks by itself in a moment.
        with suppress(OSError):
            pipe = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(pipe, f"{kind}\n".encode())
            finally:
                os.close(pipe)


class CeleryDoorbell:
    """Publishes from a thread of its own, so that a slow or dead broker holds up no request for more than a moment."""

    def __init__(self, broker_url: str, moment: float = MOMENT) -> None:
        self._broker_url = broker_url
        self._moment = moment
        self._rings: queue.SimpleQueue[tuple[str, threading.Event]] = queue.SimpleQueue()
        threading.Thread(target=self._publish_forever, name="doorbell", daemon=True).start()

    def ring(self, kind: str) -> None:
        tried = threading.Event()
        self._rings.put((kind, tried))
        # Whatever this thread does next would keep the interpreter from the other one, and is less urgent.
        tried.wait(self._moment)

    def _publish_forever(self) -> None:
        connection: kombu.Connection | None = None
        while True:
            kind, tried = self._rings.get()
            # The connection is kept: a new one takes longer than all the rest of a ring. It does not survive its
            # broker, and then the ring is tried once more on a new one.
            for broken in (False, True):
                try:
                    connection = connection or self._connect()
                    _publish(connection, kind)
                    break
                except Exception as error:
                    if connection is not None:
                        with suppress(Exception):
                            connection.release()
                    connection = None
                    if broken:  # workers find the row without this ring
                        log.warning("doorbell_failed", kind=kind, error=str(error))
            tried.set()

    def _connect(self) -> kombu.Connection:
        timeouts = {"socket_timeout": 2, "socket_connect_timeout": 2}
        return kombu.Connection(self._broker_url, connect_timeout=2, transport_options=timeouts)


def _publish(connection: kombu.Connection, kind: str) -> None:
    ring_id = str(uuid.uuid4())
    kombu.Producer(connection.default_channel).publish(
        [[kind], {}, {}],
        serializer="json",
        exchange="",
        routing_key=QUEUE,
        declare=[_QUEUE],
        headers={"lang": "py", "task": TASK, "id": ring_id, "root_id": ring_id, "ignore_result": True},
        correlation_id=ring_id,
        retry=False,
    )


def ring_after_commit(session: Session, doorbell: Doorbell, kind: str) -> None:
    """Ring once this session's transaction is committed; not at all if it is rolled back."""
    waiting = [kind]

    def ring(session: Session) -> None:
        # SQLAlchemy tells of a released savepoint as of a commit; nobody else can see the job by then.
        if waiting and not session.in_nested_transaction():
            doorbell.ring(waiting.pop())

    event.listen(session, "after_commit", ring)
    event.listen(session, "after_rollback", lambda _: waiting.clear())


def open_doorbell(settings: Settings) -> Doorbell:
    return CeleryDoorbell(settings.redis_url) if settings.redis_url else FifoDoorbell(settings.doorbell)
