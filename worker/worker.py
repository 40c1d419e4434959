"""A worker: its slots, each with a thread that looks for work, and one thread that sweeps."""

import os
import socket
import threading
import time

from app.core.database import Database
from app.core.errors import GraftError
from app.core.logging import log
from app.core.settings import Settings
from app.jobs.states import JobKind
from app.storage.configured import configured_store
from worker.slot import Slot
from worker.sweep import collect_garbage, free_scratch, take_back_expired

_GARBAGE_EVERY = 600.0  # seconds


class Worker:
    """Reading uploads has a slot beside training's, so that a long training never holds up an upload.

    Each slot looks for work every `poll_seconds` by itself. That is the whole mechanism of the embedded service; with
    a broker it is the net below the rings, so that a lost ring, or a broker that is down, costs seconds and no job.
    """

    def __init__(self, settings: Settings, poll_seconds: float) -> None:
        self._settings = settings
        self._poll_seconds = poll_seconds
        self._database = Database(settings.sqlalchemy_url)
        self._store = configured_store(settings)
        self._stopping = threading.Event()
        name = f"{socket.gethostname()}:{os.getpid()}"
        many = settings.train_slots > 1
        self._slots = [
            Slot(settings, self._database, JobKind.train, name, device if many else None)
            for device in range(settings.train_slots)
        ]
        self._slots.append(Slot(settings, self._database, JobKind.ingest, name, None))
        self._threads = [
            *(threading.Thread(target=self._poll, args=(slot,), name=f"poll-{slot.kind}") for slot in self._slots),
            threading.Thread(target=self._sweep, name="sweep"),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def ring(self, kind: JobKind) -> None:
        """Run waiting jobs of this kind in every slot that is free; returns when they have ended."""
        for slot in self._slots:
            if slot.kind is kind:
                slot.ring()

    def stop(self) -> None:
        """Give running jobs back and end every child and thread."""
        self._stopping.set()
        # Side by side: each slot's child may need its time to write a checkpoint.
        stops = [threading.Thread(target=slot.stop) for slot in self._slots]
        for thread in stops:
            thread.start()
        for thread in [*stops, *self._threads]:
            thread.join()
        self._database.close()

    def _poll(self, slot: Slot) -> None:
        while not self._stopping.is_set():
            try:
                slot.ring()
            except Exception as error:  # the loop outlives any fault; the lease takes care of the job
                _log_fault("claim_failed", error)
                self._stopping.wait(1.0)
            self._stopping.wait(self._poll_seconds)

    def _sweep(self) -> None:
        next_garbage = time.monotonic()
        while not self._stopping.is_set():
            try:
                take_back_expired(self._database)
                free_scratch(self._database, self._settings)
                if time.monotonic() >= next_garbage:
                    next_garbage = time.monotonic() + _GARBAGE_EVERY
                    collect_garbage(self._database, self._store, self._settings)
            except Exception as error:
                _log_fault("sweep_failed", error)
            self._stopping.wait(self._settings.sweep_seconds)


def _log_fault(event: str, error: Exception) -> None:
    if isinstance(error, GraftError):
        log.warning(event, code=error.code, detail=error.detail)
    else:
        log.exception(event)
