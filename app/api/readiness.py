"""Whether this process can answer, and whether it can take uploads: looked at now and then, never for longer than 2 s.

A load balancer asks every few seconds from several places, without a key. So what was found is told again for a while,
one look at a time is under way for each thing, and an answer does not wait for a look that hangs.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from app.api.deps import Services
from app.api.draining import Draining
from app.core.errors import GraftError
from app.core.logging import log
from app.core.migrations import schema_of
from app.predictions.references import ModelReference

PATIENCE_SECONDS = 1.5  # the answer comes within 2


class Look:
    """One thing to look at. `check` runs in a thread of its own; it returns `ok` or a code, or raises."""

    def __init__(self, name: str, check: Callable[[], str], fresh_seconds: float) -> None:
        self.name = name
        self._check = check
        self._fresh_seconds = fresh_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"ready-{name}")
        self._running: asyncio.Future[str] | None = None
        self._found = "unknown"
        self._at = float("-inf")

    async def result(self) -> str:
        """Return `ok`, or a word for what is wrong; `slow` where the check has not come to its end."""
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
    """What this process needs: for its answers its schema and its pinned models, for uploads the blob store as well.

    Without its database a process that has a model loaded goes on answering for callers and models that it knows, so
    it counts as ready: were it taken out of service, nobody would be answered.
    """

    def __init__(
        self,
        services: Services,
        draining: Draining,
        load_pinned: Callable[[], list[ModelReference]],
        fresh_seconds: float,
    ) -> None:
        self._services = services
        self._draining = draining
        self._load_pinned = load_pinned
        self._pinned: list[ModelReference] | None = None  # not known before the database has answered
        self._database = Look("database", self._check_database, fresh_seconds)
        self._storage = Look("storage", self._check_storage, fresh_seconds)

    async def for_answers(self) -> dict[str, str]:
        """Return what was found by name, `ok` or a word for what is wrong; `answers` says the whole in one word."""
        database = await self._database.result()
        models = self._models()
        can_go_on = database == "ok" or (not database.startswith("schema") and self._services.predictions.models.busy())
        answers = "draining" if self._draining.begun else "ok" if can_go_on and models == "ok" else "not_ready"
        return {"database": database, "models": models, "answers": answers}

    async def for_uploads(self) -> dict[str, str]:
        """Return what uploads, datasets and jobs need beside that."""
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
        """Whether the models that are to stay loaded are; one that cannot be loaded holds nothing up."""
        if self._pinned is None:
            return "ok"
        states = (self._services.predictions.models.serving(model).state for model in self._pinned)
        return "loading" if any(state == "loading" for state in states) else "ok"
