"""Fetch a file over https for a caller who may mean harm; see `exchange` for what is guarded against.

Redirects are followed by hand, each as strictly as the first address; what may pass is tried again.
"""

import time
from urllib.parse import urljoin

from app.core.outbound.errors import OutboundError, Unsteady
from app.core.outbound.exchange import Exchange
from app.core.outbound.urls import check_url

_REDIRECTS = 5
_TRIES = 3
_PERHAPS_LATER = frozenset({429, 500, 502, 503, 504})
_REDIRECTING = frozenset({301, 302, 303, 307, 308})


class Fetcher:
    """Fetches files of the kind that it `accepts` (a media range). Safe to use from several threads at once."""

    def __init__(self, exchange: Exchange, accepts: str = "*/*") -> None:
        self._exchange = exchange
        self._headers = {"Accept": accepts}

    def fetch(self, url: str) -> bytes:
        """Return the bytes at `url`. Raises `OutboundError`: `bad_url`, `forbidden_address`, `unreachable`,
        `http_status`, `too_many_redirects`, `file_too_large`, `too_slow`."""
        seconds = self._exchange.bounds.seconds
        deadline = time.monotonic() + seconds
        for number in range(1, _TRIES + 1):
            try:
                return self._follow(url, deadline)
            except Unsteady as error:
                if time.monotonic() >= deadline:
                    reason = f"It took more than {seconds:.0f} s ({error})."
                    raise OutboundError("too_slow", reason, "Try again, or send the file itself.") from None
                if number == _TRIES:
                    reason = f"It cannot be fetched: {error}."
                    raise OutboundError("unreachable", reason, "Check the address, and try again.") from None
                time.sleep(min(0.2 * number, max(0.0, deadline - time.monotonic())))
        raise AssertionError("unreachable")

    def _follow(self, url: str, deadline: float) -> bytes:
        for _ in range(_REDIRECTS + 1):
            parts = check_url(url)
            answer = self._exchange.send("GET", parts, self._headers, deadline)
            if answer.status == 200:
                return answer.body
            if answer.status in _PERHAPS_LATER:
                raise Unsteady(f"{parts.hostname} answered {answer.status}")
            if answer.status not in _REDIRECTING or not answer.location:
                reason = f"{parts.hostname} answered {answer.status}."
                raise OutboundError("http_status", reason, "Check the address.")
            url = urljoin(url, answer.location)
        raise OutboundError(
            "too_many_redirects", f"It redirects more than {_REDIRECTS} times.", "Give the address where the file is."
        )
