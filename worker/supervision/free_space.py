"""Check that a job has somewhere to write: space on this machine's disks, and a blob store that takes blobs."""

import threading
import time
from pathlib import Path
from typing import Any

from app.core.errors import StorageFull, Unavailable
from app.core.logging import log
from app.core.settings import Settings
from app.jobs.states import FailureReason
from app.storage import BlobStore, FilesystemStore
from app.storage.disk import check_free, disk_errors_explained, staged_file

_LOOK_EVERY = 2.0  # seconds between looks while something is wrong


class StorageCheck:
    """Looks before each job. A worker without space says so in the registry of workers, and jobs wait."""

    def __init__(self, settings: Settings, store: BlobStore) -> None:
        self._settings = settings
        self._store = store
        self._problem: dict[str, Any] | None = None
        self._looked = -_LOOK_EVERY
        self._lock = threading.Lock()

    def problem(self) -> dict[str, Any] | None:
        """Return what was wrong at the last look, which is taken again while something is."""
        return None if self._problem is None else self.look()

    def look(self) -> dict[str, Any] | None:
        """Return what is wrong now, as a failure's reason, detail and hint; None: there is space."""
        with self._lock:
            if self._problem is None or time.monotonic() - self._looked >= _LOOK_EVERY:
                self._looked = time.monotonic()
                before, self._problem = self._problem, self._find_problem()
                if self._problem is not None and before is None:
                    log.warning("no_room", **self._problem)
                elif before is not None and self._problem is None:
                    log.info("room_again")
            return self._problem

    def _find_problem(self) -> dict[str, Any] | None:
        try:
            self._check_folder(self._settings.scratch)
            self._store.check()
            if isinstance(self._store, FilesystemStore):
                check_free(self._store.root, self._settings.min_free_bytes)
        except Unavailable as error:
            return storage_failure(error)
        return None

    def _check_folder(self, folder: Path) -> None:
        with disk_errors_explained(folder), staged_file(folder):
            pass
        check_free(folder, self._settings.min_free_bytes)


def storage_failure(error: Unavailable) -> dict[str, Any]:
    """Return the failure of a job that could not keep something."""
    full = isinstance(error, StorageFull)
    return {
        "reason": FailureReason.storage_full if full else FailureReason.storage_unavailable,
        "detail": error.detail,
        "hint": "Free some space, or give that disk more." if full else "Mend that place, or what leads to it.",
    }
