"""How many requests, and how many bytes of them, are in the house at once; past that they are refused unread."""

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from app.core.errors import Unavailable

_MOMENT = 0.1  # seconds that a refusal holds at most: who was waited for may have given up


class Admission:
    """Counts for one event loop, whose code alone may call it: no lock is needed.

    An empty house takes any one request, so that none is too large for ever.
    """

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests = 0
        self._bytes = 0
        self._refused: tuple[Hashable, Unavailable, float] | None = None

    def refuse(self, caller: Hashable, error: Unavailable, seconds: float) -> None:
        """Have the caller's next calls meet the same error for so long, or for a moment if that is less."""
        self._refused = caller, error, time.monotonic() + min(seconds, _MOMENT)

    def refusal(self, caller: Hashable) -> Unavailable | None:
        """The error that this caller is to have unread."""
        if self._refused is None or time.monotonic() > self._refused[2]:
            self._refused = None
            return None
        refused, error, _ = self._refused
        return error if refused == caller else None

    @contextmanager
    def enter(self, nbytes: int) -> Iterator[None]:
        """Be counted with a body of `nbytes` while the context lasts. Raises `Unavailable` (`overloaded`)."""
        full = self._requests >= self._max_requests or self._bytes + nbytes > self._max_bytes
        if self._requests and full:
            raise Unavailable(
                f"{self._requests} requests with {self._bytes} bytes are being answered already; "
                "try again in a second.",
                code="overloaded",
                retry_after=1,
            )
        self._requests += 1
        self._bytes += nbytes
        try:
            yield
        finally:
            self._requests -= 1
            self._bytes -= nbytes
