"""The predict call's shortcuts: how each is switched off, and what is kept so that they can be taken.

What each of them saves is measured by `python -m bench.predict_path`; figures and reasons stand in
docs/explanation/fast-paths.md. Everything here belongs to the event loop's thread alone: no lock is needed.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from anyio import fail_after, to_thread

from app.auth.service import Principal
from app.core.database import Database
from app.core.errors import Unavailable
from app.predictions.references import ModelReference
from app.predictions.schemas import PredictOptions

T = TypeVar("T")

_SECONDS = 1.0  # within which another process's write may go unseen
_RENEWED = 0.7  # seconds after which one caller reads it again, so that not all have to when its time is over
_OUTAGE = 1.0  # seconds for which a read is waited for where what it will say is known from before
_MOST_RECENT = 1000
_LONGEST_QUERY = 500  # bytes

Call: TypeAlias = tuple[str, bytes, str]  # path, query and Authorization header


@dataclass(frozen=True)
class Shortcuts:
    """Which shortcuts are taken: all of them, except where a benchmark measures what one is worth."""

    direct: bool = True  # a call with a known key and query goes to its endpoint, past FastAPI's dependencies
    keys: bool = True  # a key is read from the database once a second, not once a call
    models: bool = True  # so is what a model's id means
    refused_seconds: float = 0.1  # for so long at most a call like one that was refused is refused with its body unread
    first: bool = True  # the predict route is the first that a path is compared with
    switch_seconds: float = 0.0005  # after which a busy thread hands on the interpreter's lock; Python's own is 0.005


class Recent(Generic[T]):
    """Values by key, each kept for a second; whatever this process writes to the database ends them all.

    It is for values that hardly ever change and cost more to read than to use. While the database is away those that
    were read in the last `outage_seconds` go on being given, unless this process has committed anything since.
    """

    def __init__(self, database: Database, *, keeps: bool = True, outage_seconds: float = 0.0) -> None:
        self._database = database
        self._outage_seconds = outage_seconds
        self._read: dict[Hashable, tuple[int, float]] = {}  # how much was committed then, and when it was read
        self._most = _MOST_RECENT if keeps else 0
        self._kept: OrderedDict[Hashable, tuple[T, int, float]] = OrderedDict()
        self._renewing: set[Hashable] = set()

    @property
    def now(self) -> int:
        """Return what `put` asks for: how much had been written before the value was read."""
        return self._database.writes

    def get(self, key: Hashable) -> T | None:
        """Return the value, or None where the caller is to read it."""
        value, writes, since = self._kept.get(key, (None, -1, 0.0))
        age = time.monotonic() - since
        if value is None or writes != self._database.writes or age >= _SECONDS:
            return None
        if age >= _RENEWED and key not in self._renewing:
            self._renewing.add(key)
            return None
        return value

    def put(self, key: Hashable, value: T, now: int) -> T:
        """Keep a value that was read when `now` was taken, or later, and return it."""
        self._read[key] = self._database.commits, time.monotonic()
        self._keep(key, value, now)
        return value

    async def find(self, key: Hashable, read: Callable[[], T], *, fresh: bool = False) -> T:
        """Return the value that is kept, or that `read` reads in a thread; where the database is away, the one before.

        `fresh` has it read each time that the database answers. Where a value is known from before, no read is waited
        for longer than a second.
        """
        if not fresh and (value := self.get(key)) is not None:
            return value
        now, before = self.now, self._before(key)
        try:
            with fail_after(None if before is None else _OUTAGE):
                return self.put(key, await to_thread.run_sync(read, abandon_on_cancel=before is not None), now)
        except (Unavailable, TimeoutError):
            if before is None:
                raise
            self._keep(key, before, self.now)  # for a second again: not every call is to wait
            return before

    def _before(self, key: Hashable) -> T | None:
        """Return the value that was read last, if that was in time and nothing was committed here since."""
        commits, read_at = self._read.get(key, (-1, 0.0))
        in_time = time.monotonic() - read_at < self._outage_seconds
        return self._kept[key][0] if in_time and commits == self._database.commits and key in self._kept else None

    def _keep(self, key: Hashable, value: T, now: int) -> None:
        self._kept[key] = (value, now, time.monotonic())
        self._kept.move_to_end(key)
        self._renewing.discard(key)
        if len(self._kept) > self._most:
            oldest = self._kept.popitem(last=False)[0]
            self._renewing.discard(oldest)
            self._read.pop(oldest, None)


class ReadQueries:
    """Options of predict calls by the text of the query that they were read from; at most `most` of them."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most
        self._kept: dict[bytes, PredictOptions] = {}

    def get(self, query: bytes) -> PredictOptions | None:
        """Return what the query asks for, or None where it has to be read."""
        return self._kept.get(query)

    def put(self, query: bytes, options: PredictOptions) -> None:
        """Keep what was read, unless the query is a long one."""
        if len(query) <= _LONGEST_QUERY:
            if len(self._kept) >= self._most:
                self._kept.clear()
            self._kept[query] = options


class Refusals:
    """The call that was refused last, and the error that the same call meets until a moment has passed.

    Under load most calls are refused, and what each of them costs is taken from those that are answered. No error is
    kept for more than `longest` seconds: the calls that were waited for may have been given up.
    """

    def __init__(self, longest: float = Shortcuts.refused_seconds) -> None:
        self._longest = longest
        self._last: tuple[Call, Unavailable, float] | None = None

    def put(self, call: Call | None, error: Unavailable, seconds: float) -> None:
        """Have the same call meet the same error for so many seconds, or for the longest time."""
        if call is not None:
            self._last = call, error, time.monotonic() + min(seconds, self._longest)

    def get(self, call: Call | None) -> Unavailable | None:
        """Return the error that this call is to meet, unread."""
        if self._last is None:
            return None
        refused, error, until = self._last
        if time.monotonic() >= until:
            self._last = None
            return None
        return error if refused == call else None


@dataclass(frozen=True, slots=True)
class PredictPath:
    """Holds what one process keeps so that predict calls are short."""

    shortcuts: Shortcuts
    keys: Recent[Principal]  # by their Authorization header; every route's keys are looked up here
    models: Recent[ModelReference]  # by workspace and id: what an id means never changes
    queries: ReadQueries
    refusals: Refusals

    @classmethod
    def of(cls, shortcuts: Shortcuts, database: Database, outage_seconds: float) -> "PredictPath":
        """Return an empty one for a service with that database."""
        return cls(
            shortcuts,
            Recent(database, keeps=shortcuts.keys, outage_seconds=outage_seconds),
            Recent(database, keeps=shortcuts.models, outage_seconds=outage_seconds),
            ReadQueries(),
            Refusals(shortcuts.refused_seconds),
        )
