"""Server-sent events of what is written to the database: look again and again, and send what is new."""

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from math import inf

import anyio
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from app.api.draining import Draining
from app.core.errors import Unavailable

_LOOK_EVERY = 0.3  # seconds between looks for new events
_LOOK_AGAIN_AFTER = 2.0  # seconds, where the database did not answer
_CONNECT_AGAIN_AFTER_MS = 1000


@dataclass(frozen=True, slots=True)
class Look:
    """Holds what one look found: lines to send, whether more is there already, and whether none will come."""

    lines: list[bytes]
    more: bool = False
    over: bool = False


class EventStream(StreamingResponse):
    """Not FastAPI's own: its keep-alive raises where a client leaves while an event waits to be sent."""

    media_type = "text/event-stream"


def stream(look: Callable[[], Look], silence: float, draining: Draining, seconds: float = inf) -> EventStream:
    """Return the answer that sends what `look` finds until it says that it is over, or the process stops.

    Before the process stops, and after so many `seconds`, the client is told to connect again, and after how long.
    `look` runs in a thread. After `silence` seconds without a line a comment says that the connection lives: proxies
    close what is silent for long.
    """
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return EventStream(_lines(look, silence, draining, seconds), headers=headers)


async def _lines(look: Callable[[], Look], silence: float, draining: Draining, seconds: float) -> AsyncIterator[bytes]:
    sent_at = time.monotonic()
    ends_at = sent_at + seconds
    while not draining.over and time.monotonic() < ends_at:
        try:
            found = await run_in_threadpool(look)
        except Unavailable:  # the stream outlives a moment without a database
            await anyio.sleep(_LOOK_AGAIN_AFTER)
            continue
        if found.over:
            return
        lines = found.lines
        if not lines and time.monotonic() - sent_at >= silence:
            lines = [format_sse_event(comment="still here")]
        for line in lines:
            yield line
            sent_at = time.monotonic()
        if not found.more:
            await anyio.sleep(_LOOK_EVERY)
    yield format_sse_event(comment="connect again", retry=_CONNECT_AGAIN_AFTER_MS)
