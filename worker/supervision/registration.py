"""A worker's row in the registry of workers: made when it starts, kept alive by a thread, deleted when it stops."""

import socket
import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

from app import __version__
from app.core.database import Database
from app.core.errors import GraftError
from app.core.logging import log
from app.core.settings import Settings
from app.jobs import workers
from worker.processes.devices import devices


class Registration:
    """Beats three times a lease, so that one that is late does not make the worker look lost."""

    def __init__(
        self, settings: Settings, database: Database, name: str, problem: Callable[[], dict[str, Any] | None]
    ) -> None:
        self._settings = settings
        self._database = database
        self._name = name
        self._problem = problem
        self._id: UUID | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat_forever, name="heartbeat")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def is_eldest(self) -> bool:
        """Return whether this worker is the one of all that collects garbage."""
        with self._database.reading() as session:
            return workers.is_eldest(session, self._id)

    def _beat_forever(self) -> None:
        while not self._stopping.is_set():
            self._attempt(self._beat)
            self._stopping.wait(self._settings.lease_seconds / 3)
        self._attempt(self._leave)

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except GraftError as error:  # the database is away; the next beat finds the row, or makes it
            log.warning("heartbeat_failed", code=error.code, detail=error.detail)
        except Exception:
            log.exception("heartbeat_failed")

    def _beat(self) -> None:
        found, lost_after = devices(), self._settings.lease_seconds
        with self._database.writing() as session:
            known = self._id is not None and workers.beat(
                session, self._id, devices=found, problem=self._problem(), lost_after=lost_after
            )
            if not known:
                self._id = workers.register(
                    session,
                    name=self._name,
                    host=socket.gethostname(),
                    version=__version__,
                    devices=found,
                    train_slots=self._settings.train_slots,
                    lost_after=lost_after,
                )

    def _leave(self) -> None:
        if self._id is not None:
            with self._database.writing() as session:
                workers.leave(session, self._id)
