"""Check whether this process can answer, and whether it can take uploads, within 2 s.

A load balancer asks every few seconds from several places, without a key. So a result is repeated for a while, each
thing has at most one check running, and a response does not wait for a check that hangs.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.api.deps import Services
from app.core.errors import GraftError
from app.core.logging import log
from app.core.migrations import schema_of
from app.predictions.references import ModelReference

PATIENCE_SECONDS = 1.5  # the answer comes within 2


class Look:
    """A check of one thing. `check` runs in its own thread; it returns `ok` or a code, or raises."""

    def __init__(self, name: str, check: Callable[[], str], fresh_seconds: float) -> None:
        self.name = name
        self._check = check
        self._fresh_seconds = fresh_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ready-{name}")
        self._running: asyncio.Future[str] | None = None
        self._found = "unknown"
        self._at = float("-inf")

    async def result(self) -> str:
        """Return `ok` or a word for the fault; `slow` if the check has not ended yet."""
        if time.monotonic() - self._at < self._fresh_seconds:
            return self._found
        if self._running is None:
            self._running = asyncio.get_running_loop().run_in_executor(self._thread, self._run)
            self._running.add_done_callback(self._keep)
        await asyncio.wait([self._running], timeout=PATIENCE_SECONDS)
        return self._found if self._running is None or self._running.done() else "slow"

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> str:
        try:
            return self._check()
        except Exception as error:  # whatever it is, the thing cannot be used now
            log.warning("not_ready", check=self.name, error=str(error))
            return error.code if isinstance(error, GraftError) else "unavailable"

    def _keep(self, done: "asyncio.Future[str]") -> None:
        self._running = None
        if not done.cancelled():
            self._found, self._at = done.result(), time.monotonic()


class Readiness:
    """The checks of what this process needs: schema and pinned models for answers, and the blob store for uploads.

    A process that cannot reach its database but has a model loaded still answers for the callers and models that it
    knows. So it counts as ready: if it were taken out of service, nobody would get an answer.
    """

    def __init__(
        self,
        services: Services,
        load_pinned: Callable[[], list[ModelReference]],
        fresh_seconds: float,
    ) -> None:
        self._services = services
        self._load_pinned = load_pinned
        self._pinned: list[ModelReference] | None = None  # not known before the database has answered
        self._database = Look("database", self._check_database, fresh_seconds)
        self._storage = Look("storage", self._check_storage, fresh_seconds)

    async def for_answers(self) -> dict[str, str]:
        """Return for each check `ok` or a word for the fault; `answers` sums up all of them in one word."""
        database = await self._database.result()
        models = self._models()
        can_go_on = database == "ok" or (not database.startswith("schema") and self._services.predictions.models.busy())
        answers = "draining" if self._services.draining.begun else "ok" if can_go_on and models == "ok" else "not_ready"
        return {"database": database, "models": models, "answers": answers}

    async def for_uploads(self) -> dict[str, str]:
        """Return the same for uploads, datasets and jobs, which also need the blob store."""
        found = await self.for_answers()
        return found | {"storage": await self._storage.result()}

    def close(self) -> None:
        self._database.close()
        self._storage.close()

    def _check_database(self) -> str:
        with self._services.database.reading() as session:
            schema = schema_of(session.connection())
        if not schema.fits:
            log.warning("schema_does_not_fit", detail=schema.says())
            return "schema_missing" if schema.found is None else "schema_too_old" if schema.known else "schema_too_new"
        if self._pinned is None:
            self._pinned = self._load_pinned()
        return "ok"

    def _check_storage(self) -> str:
        self._services.store.check()
        return "ok"

    def _models(self) -> str:
        """Return `loading` while a pinned model is being loaded, else `ok`; one that cannot be loaded is ignored."""
        if self._pinned is None:
            return "ok"
        states = (self._services.predictions.models.serving(model).state for model in self._pinned)
        return "loading" if any(state == "loading" for state in states) else "ok"
