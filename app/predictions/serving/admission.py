"""Count the requests that are being answered, and their bytes; past a limit the next ones are refused unread."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import Unavailable


class Admission:
    """Counts for one event loop, whose code alone may call it: no lock is needed.

    Where no request is being answered any one is let in, so that none is too large for ever.
    """

    def __init__(self, *, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._requests = 0
        self._bytes = 0

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
