"""Loaded models: loaded once on first use, kept within a budget of bytes, least recently used out first."""

import math
import tempfile
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from app.core.clock import utc_now
from app.core.errors import GraftError, Unavailable
from app.core.garbage import freeze_imports
from app.core.logging import log
from app.predictions.references import ModelReference
from app.predictions.schemas import Serving
from app.predictions.serving.batcher import Batcher
from app.predictions.serving.tuning import Tuner
from app.predictions.serving.turns import Turns
from app.storage import BlobStore

if TYPE_CHECKING:
    from app.vision.engines.model import TrainedModel

_LOADERS = 2  # loads at once: one may wait for room while another reads


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """`budget_bytes` of weights, `max_batch` and `max_waiting` images a model; seconds, where None means never; and
    the images that a model answers before it is worth a minute of measuring which engine is the best."""

    budget_bytes: int
    max_batch: int = 32
    max_waiting: int = 256
    idle_seconds: float | None = None
    retry_seconds: float = 0.0
    tune_after: int = 64


@dataclass(slots=True, eq=False)
class _Entry:
    """A model that is loaded or about to be; `nbytes` is what it is counted with, 0 while it waits for room."""

    model: ModelReference
    batcher: Future[Batcher] = field(default_factory=Future)
    nbytes: int = 0
    users: int = 0
    used_at: float = 0.0
    settled: bool = False  # nothing is to be found out about its engine

    @property
    def ready(self) -> bool:
        return self.batcher.done() and self.batcher.exception() is None


@dataclass(frozen=True, slots=True)
class _Failure:
    error: GraftError
    at: datetime
    until: float


class Lease:
    """Keeps a model loaded while the context lasts; `batcher` is done when it is loaded, or has the error."""

    def __init__(self, cache: "ModelCache", entry: _Entry) -> None:
        self._cache = cache
        self._entry = entry
        self.batcher = entry.batcher

    def __enter__(self) -> Future[Batcher]:
        return self.batcher

    def __exit__(self, *_: object) -> None:
        self._cache.release(self._entry)


class ModelCache:
    """Batchers by the SHA-256 of their artefact and their engine: a model never changes, so an entry is never stale.

    Without a `tuner` every model is answered by the reference engine.

    A model that cannot be loaded, or that fails while it answers, is unhealthy: callers get its error until
    `retry_seconds` have passed, and then it is loaded anew.
    """

    def __init__(self, store: BlobStore, limits: CacheLimits, *, scratch: Path, tuner: Tuner | None = None) -> None:
        self._store = store
        self._limits = limits
        self._scratch = scratch
        self._tuner = tuner
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._failures: dict[str, _Failure] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._turns = Turns()
        self._loaders = ThreadPoolExecutor(_LOADERS, thread_name_prefix="load")
        self._tuning = ThreadPoolExecutor(1, thread_name_prefix="tune")

    def lease(self, model: ModelReference) -> Lease:
        """Begin to use a model: returns at once, and loads it if need be. Concurrent first callers load it once.

        Raises `Unavailable` with the failure's own code while the model is unhealthy.
        """
        key = model.key
        with self._changed:
            entry = self._entries.get(key)
            if entry is None:
                self._refuse_unhealthy(key)
                entry = self._entries[key] = _Entry(model)
                entry.batcher.set_running_or_notify_cancel()  # one caller's deadline does not end it for the others
                self._loaders.submit(self._load, key, entry)
            self._entries.move_to_end(key)
            entry.model = model  # it may have been pinned since
            entry.users += 1
            return Lease(self, entry)

    def release(self, entry: _Entry) -> None:
        """End a lease."""
        with self._changed:
            entry.users -= 1
            entry.used_at = time.monotonic()
            if not entry.settled and entry.ready and entry.batcher.result().answered >= self._limits.tune_after:
                entry.settled = True
                self._tuning.submit(self._tune, entry)
            self._changed.notify_all()

    def tell(self, model: ModelReference) -> None:
        """Note that a model was pinned or unpinned, if it is loaded."""
        with self._changed:
            if (entry := self._entries.get(model.key)) is not None:
                entry.model = model

    def serving(self, model: ModelReference) -> Serving:
        """Return the state of a model in this process."""
        with self._changed:
            entry, failure = self._entries.get(model.key), self._failures.get(model.key)
            if entry is not None and entry.ready:
                engine = entry.batcher.result().model.engine.name
                return Serving(state="ready", bytes=entry.nbytes, engine=engine)
            if failure is not None:
                return Serving(state="unhealthy", detail=failure.error.detail, since=failure.at)
            return Serving(state="unloaded" if entry is None else "loading")

    def busy(self) -> bool:
        """Return whether any model is loaded in this process."""
        with self._changed:
            return any(entry.ready for entry in self._entries.values())

    def close(self) -> None:
        with self._changed:
            self._closed = True
            entries, self._entries = list(self._entries.values()), OrderedDict()
            self._changed.notify_all()
        self._loaders.shutdown()
        self._tuning.shutdown(wait=False, cancel_futures=True)  # it ends before its next computation
        for entry in entries:
            if entry.ready:
                entry.batcher.result().close()

    def _refuse_unhealthy(self, key: str) -> None:
        failure = self._failures.get(key)
        left = failure.until - time.monotonic() if failure else 0.0
        if failure is not None and left > 0:
            if failure.error.status < 500:  # not the model's fault: this engine cannot be made of it
                raise failure.error.with_traceback(None)
            raise Unavailable(failure.error.detail, code=failure.error.code, retry_after=math.ceil(left))

    def _load(self, key: str, entry: _Entry) -> None:
        from app.vision.artefacts.model_file import load_model
        from app.vision.errors import VisionError

        try:
            self._make_room(entry)
            self._scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._scratch, prefix="model-") as directory:
                loaded = load_model(self._store.fetch(entry.model.artefact_sha256, Path(directory)))
            self._take_engine(entry, loaded)
            freeze_imports()
        except Exception as error:
            told = error
            if isinstance(error, VisionError | MemoryError | RuntimeError):
                told = Unavailable(f"The model cannot be loaded: {error}", code="model_unhealthy", retry_after=1)
            self._drop(key, entry, told)
            entry.batcher.set_exception(told)
            return
        batcher = Batcher(
            loaded,
            max_batch=self._limits.max_batch,
            max_waiting=self._limits.max_waiting,
            turns=self._turns,
            idle_seconds=self._limits.idle_seconds,
            on_idle=lambda: self._unload_idle(key, entry),
            on_failure=lambda error: self._fail(key, entry, error),
        )
        with self._changed:
            entry.nbytes = loaded.nbytes
            self._failures.pop(key, None)
            entry.batcher.set_result(batcher)
            self._unload_others(entry)
            self._changed.notify_all()
        if self._closed:
            batcher.close()

    def _take_engine(self, entry: _Entry, loaded: "TrainedModel") -> None:
        """Take the engine that the caller insists on, or the one that was found the best on a machine like this."""
        model = entry.model
        if self._tuner is None or not (model.engine or self._tuner.has_candidates):
            entry.settled = True
            return
        name = model.engine or self._tuner.recall(model.model_id)
        if name is None:
            return
        entry.settled = True
        try:
            loaded.engine = self._tuner.make(name, model.model_id, model.artefact_sha256, loaded)
        except Exception as error:
            if model.engine is not None:
                raise
            log.warning("engine_not_made", engine=name, model=str(model.model_id), exc_info=error)

    def _tune(self, entry: _Entry) -> None:
        assert self._tuner is not None
        loaded, model = entry.batcher.result().model, entry.model

        def turn() -> Turns:
            if self._closed:
                raise Unavailable("The service is being stopped.")
            return self._turns

        try:
            engine = self._tuner.tune(model.model_id, model.artefact_sha256, loaded, turn)
            freeze_imports()
        except Exception as error:  # the reference goes on answering
            log.warning("tuning_failed", model=str(model.model_id), exc_info=error)
            return
        with self._changed:
            loaded.engine = engine
            entry.nbytes = loaded.nbytes
            self._unload_others(entry)

    def held_bytes(self) -> int:
        """Return what the models that are loaded, or being loaded, are counted with."""
        with self._changed:
            return self._total()

    def _make_room(self, entry: _Entry) -> None:
        """Wait until the model fits beside those that are in use; it is let in when it would be alone."""
        with self._changed:
            while not self._closed:
                entry.nbytes = entry.model.artefact_size
                self._unload_others(entry)
                others = [one for one in self._entries.values() if one is not entry and one.nbytes]
                if self._total() <= self._limits.budget_bytes or all(one.model.pinned for one in others):
                    return
                entry.nbytes = 0
                self._changed.wait()
        raise Unavailable("The service is being stopped.", retry_after=2)

    def _total(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())

    def _unload_others(self, newest: _Entry) -> None:
        """Unload the least recently used that nobody uses, until the rest fits; `newest` stays, however large."""
        for key, entry in list(self._entries.items()):
            if self._total() <= self._limits.budget_bytes:
                return
            if entry is not newest and entry.ready and not entry.users and not entry.model.pinned:
                self._unload(key, entry)

    def _unload(self, key: str, entry: _Entry) -> None:
        del self._entries[key]
        entry.batcher.result().close()

    def _unload_idle(self, key: str, entry: _Entry) -> None:
        with self._changed:
            idle = time.monotonic() - entry.used_at >= (self._limits.idle_seconds or 0)
            if self._entries.get(key) is entry and idle and not entry.users and not entry.model.pinned:
                self._unload(key, entry)
                self._changed.notify_all()

    def _fail(self, key: str, entry: _Entry, error: Exception) -> None:
        detail = f"The model failed while it answered ({type(error).__name__}); it is loaded anew after a pause."
        self._drop(key, entry, Unavailable(detail, code="model_failed"))

    def _drop(self, key: str, entry: _Entry, error: Exception) -> None:
        """Forget an entry that failed. What is the store's fault, and not the model's, leaves no mark on the model."""
        with self._changed:
            if self._entries.get(key) is entry:
                del self._entries[key]
            if isinstance(error, GraftError) and error.code not in ("storage_unavailable", "unavailable"):
                until = time.monotonic() + self._limits.retry_seconds
                self._failures[key] = _Failure(error, utc_now(), until)
                log.warning("model_unhealthy", model=str(entry.model.model_id), detail=error.detail)
            self._changed.notify_all()
