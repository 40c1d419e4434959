"""A worker: its slots, each with a thread that looks for work, and one thread for housekeeping."""

import os
import socket
import threading
import time
from pathlib import Path

from app.core.database import configured_database
from app.core.errors import GraftError
from app.core.logging import log
from app.core.settings import Settings
from app.jobs import workers
from app.jobs.types import KNOWN, JobTypes, Resource
from app.storage.configured import configured_store
from app.work import register_further
from worker.processes.reaper import Reaper
from worker.supervision.free_space import StorageCheck
from worker.supervision.housekeeping import collect_garbage, free_scratch, take_back_expired
from worker.supervision.listener import Listener
from worker.supervision.registration import Registration
from worker.supervision.sign_of_life import SignOfLife
from worker.supervision.slot import Slot

_GARBAGE_EVERY = 600.0  # seconds
_LOOK_FOR_GARBAGE_EVERY = 30.0  # seconds, of a worker that was not the eldest


class Worker:
    """Has slots of each resource, as many as `workers.slots_of` says.

    Each slot looks for work every `poll_seconds` by itself: the net below the rings, so that a lost ring, or a broker
    that is down, costs seconds and no job. Rings come from the broker (`ring`) or from the embedded service's
    `doorbell`, a named pipe.
    """

    def __init__(
        self, settings: Settings, poll_seconds: float, doorbell: Path | None = None, kinds: JobTypes = KNOWN
    ) -> None:
        register_further(settings)
        self._settings = settings
        self._poll_seconds = poll_seconds
        self._database = configured_database(settings)
        self._store = configured_store(settings)
        self._stopping = threading.Event()
        self._stopped = threading.Event()  # by every slot
        name = f"{socket.gethostname()}:{os.getpid()}"
        storage, warm = StorageCheck(settings, self._store), settings.warm_children
        self._slots = [
            Slot(settings, self._database, self._store, storage, kinds.of(resource), name, device, warm)
            for resource in Resource
            for device in _devices(resource, settings.train_slots)
        ]
        self._reaper = Reaper()
        self._registration = Registration(settings, self._database, name, storage.problem)
        self._rung = {slot: threading.Event() for slot in self._slots}
        self._listener = Listener(doorbell, self._wake) if doorbell else None
        self._polls = [threading.Thread(target=self._poll, args=(slot,), name="poll") for slot in self._slots]
        self._housekeeper = threading.Thread(target=self._keep_house, name="housekeeping")
        self._alive = SignOfLife(settings, [*self._polls, self._housekeeper])

    def start(self) -> None:
        self._registration.start()
        if self._listener is not None:
            self._listener.start()
        for thread in (*self._polls, self._housekeeper):
            thread.start()
        self._alive.start()

    def ring(self, kind: str) -> None:
        """Run waiting jobs in every free slot for this kind; returns when they have ended. A kind that nobody here
        knows, which newer code rings for, wakes none."""
        for slot in self._slots:
            if kind in slot.kinds:
                slot.ring()

    def stop(self) -> None:
        """Give running jobs back and end every child and thread."""
        self._stopping.set()
        self._alive.stop()
        if self._listener is not None:
            self._listener.stop()
        for rung in self._rung.values():
            rung.set()
        # Side by side: each slot's child may need its time to write a checkpoint.
        stops = [threading.Thread(target=slot.stop) for slot in self._slots]
        for thread in stops:
            thread.start()
        for thread in (*stops, *self._polls):
            thread.join()
        # Until now it kept house: a stop may take its time, and it may be the only one who can notice a lost worker.
        self._stopped.set()
        self._housekeeper.join()
        self._registration.stop()
        self._reaper.close()
        self._database.close()

    def _wake(self, kind: str) -> None:
        for slot, rung in self._rung.items():
            if kind in slot.kinds:
                rung.set()

    def _poll(self, slot: Slot) -> None:
        rung, told = self._rung[slot], False
        while not self._stopping.is_set():
            try:
                slot.ring(told)
            except Exception as error:  # the loop outlives any fault; the lease takes care of the job
                _log_fault("claim_failed", error)
                self._stopping.wait(1.0)
            told = rung.wait(self._poll_seconds)
            rung.clear()

    def _keep_house(self) -> None:
        next_garbage = time.monotonic()
        while not self._stopped.is_set():
            try:
                if take_back_expired(self._database):
                    for rung in self._rung.values():
                        rung.set()
                free_scratch(self._database, self._settings)
                if time.monotonic() >= next_garbage:
                    next_garbage = time.monotonic() + self._collect_garbage()
            except Exception as error:
                _log_fault("sweep_failed", error)
            self._stopped.wait(self._settings.sweep_seconds)

    def _collect_garbage(self) -> float:
        """Let one worker of all collect what all share, and return after how many seconds to look again."""
        if not self._registration.is_eldest():
            return _LOOK_FOR_GARBAGE_EVERY
        collect_garbage(self._database, self._store, self._settings)
        return _GARBAGE_EVERY


def _devices(resource: Resource, train_slots: int) -> list[int | None]:
    """Return the GPU of each slot of that resource; None: all that there are, or none."""
    count = workers.slots_of(resource, train_slots)
    return list(range(count)) if resource is Resource.gpu and count > 1 else [None] * count


def _log_fault(event: str, error: Exception) -> None:
    if isinstance(error, GraftError):
        log.warning(event, code=error.code, detail=error.detail)
    else:
        log.exception(event)
