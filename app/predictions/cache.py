"""Loaded models: loaded once on first use, kept within a budget of bytes, least recently used out first."""

import tempfile
import threading
from collections import OrderedDict
from concurrent.futures import Future
from pathlib import Path

from app.predictions.batcher import Batcher
from app.storage import BlobStore


class ModelCache:
    """Batchers by the SHA-256 of their artefact: a model never changes, so an entry is never stale."""

    def __init__(self, store: BlobStore, *, budget_bytes: int, max_batch: int, max_waiting: int, scratch: Path) -> None:
        self._store = store
        self._budget_bytes = budget_bytes
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._scratch = scratch
        self._loaded: OrderedDict[str, Future[Batcher]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, artefact_sha256: str) -> Batcher:
        """The model's batcher, loaded if need be; concurrent first callers load it once and wait together."""
        with self._lock:
            entry = self._loaded.get(artefact_sha256)
            mine = entry is None
            if entry is None:
                entry = self._loaded[artefact_sha256] = Future()
            self._loaded.move_to_end(artefact_sha256)
        if mine:
            try:
                entry.set_result(self._load(artefact_sha256))
            except BaseException as error:
                with self._lock:  # the next caller tries again
                    self._loaded.pop(artefact_sha256, None)
                entry.set_exception(error)
            else:
                self._evict()
        return entry.result()

    def close(self) -> None:
        with self._lock:
            entries, self._loaded = list(self._loaded.values()), OrderedDict()
        for entry in entries:
            if entry.done() and entry.exception() is None:
                entry.result().close()

    def _load(self, artefact_sha256: str) -> Batcher:
        from app.vision.artefact import load_model

        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="model-") as directory:
            classifier = load_model(self._store.fetch(artefact_sha256, Path(directory)))
        return Batcher(classifier, max_batch=self._max_batch, max_waiting=self._max_waiting)

    def _evict(self) -> None:
        """Unload the least recently used until the rest fits; the newest stays, however large it is."""
        with self._lock:
            ready = [(key, entry.result()) for key, entry in self._loaded.items() if entry.done()]
            total = sum(batcher.classifier.nbytes for _, batcher in ready)
            for key, batcher in ready[:-1]:
                if total <= self._budget_bytes:
                    break
                total -= batcher.classifier.nbytes
                del self._loaded[key]
                batcher.close()
