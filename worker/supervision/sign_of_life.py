"""A file that a worker touches while all of its threads live, for health checks that cost next to nothing."""

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from app.core.settings import Settings

TOUCHED_EVERY = 5.0  # seconds


class SignOfLife:
    """Keeps `GRAFT_HOME/alive/HOSTNAME` young. It needs neither the database nor the broker.

    A health check asks for its age: `find alive/HOSTNAME -newermt '-30 seconds'`.
    """

    def __init__(self, settings: Settings, watched: Sequence[threading.Thread]) -> None:
        self._path = settings.home.absolute() / "alive" / socket.gethostname()
        self._watched = watched
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._touch_forever, name="sign-of-life")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and remove the file, so that a worker that has stopped does not look alive."""
        self._stopping.set()
        self._thread.join()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _touch_forever(self) -> None:
        while not self._stopping.is_set():
            if all(thread.is_alive() for thread in self._watched):
                with suppress(OSError):  # a full disk shows in the registry of workers
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._path.touch()
            self._stopping.wait(TOUCHED_EVERY)
