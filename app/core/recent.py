"""This module keeps what was read from the database a moment ago, for reads that come with every request."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from app.core.database import Database

T = TypeVar("T")

_SECONDS = 1.0  # within which another process's write may go unseen
_RENEWED = 0.7  # seconds after which one caller reads it again, so that not all have to when its time is over
_MOST = 1000


class Recent(Generic[T]):
    """This class keeps values by key. Any write of this process ends them all; so does a second.

    For what hardly ever changes and costs more to read than to use. Of the event loop's thread alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: OrderedDict[Hashable, tuple[T, int, float]] = OrderedDict()
        self._renewing: set[Hashable] = set()

    @property
    def now(self) -> int:
        """Return what `put` needs to know: how much had been written before the value was read."""
        return self._database.writes

    def get(self, key: Hashable) -> T | None:
        value, writes, since = self._kept.get(key, (None, -1, 0.0))
        age = time.monotonic() - since
        if value is None or writes != self._database.writes or age >= _SECONDS:
            return None
        if age >= _RENEWED and key not in self._renewing:
            self._renewing.add(key)
            return None
        return value

    def put(self, key: Hashable, value: T, now: int) -> T:
        """Keep a value that was read when `now` was taken, or later."""
        self._kept[key] = (value, now, time.monotonic())
        self._kept.move_to_end(key)
        self._renewing.discard(key)
        if len(self._kept) > _MOST:
            self._renewing.discard(self._kept.popitem(last=False)[0])
        return value
