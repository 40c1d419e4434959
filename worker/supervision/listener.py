"""Hear the embedded service's doorbell, a named pipe. A ring unheard costs a moment: slots look by themselves."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.core.logging import log


class Listener:
    """Calls `heard` from a thread of its own, once for each kind that was rung since it last looked."""

    def __init__(self, path: Path, heard: Callable[[str], None]) -> None:
        self._path = path
        self._heard = heard
        self._pipe: int | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._listen, name="doorbell")

    def start(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                os.mkfifo(self._path, 0o600)
            # For writing too: without any writer a read would end at once, over and over.
            self._pipe = os.open(self._path, os.O_RDWR)
        except OSError as error:  # a disk that is read-only, or knows no pipes
            log.warning("doorbell_not_heard", path=str(self._path), error=str(error))
            return
        self._thread.start()

    def stop(self) -> None:
        if self._pipe is not None:
            self._stopping = True
            os.write(self._pipe, b"\n")
            self._thread.join()
            os.close(self._pipe)

    def _listen(self) -> None:
        assert self._pipe is not None
        while not self._stopping:
            for word in set(os.read(self._pipe, 4096).split()):
                self._heard(word.decode("ascii", "replace"))  # anybody of this user's may write to it
