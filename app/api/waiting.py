"""Wait until a condition holds, without occupying a thread or a transaction meanwhile."""

import time
from collections.abc import Callable
from typing import TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

from app.api.draining import Draining

T = TypeVar("T")
_LOOK_EVERY = 0.25  # seconds


async def until(look: Callable[[], T], done: Callable[[T], bool], seconds: float, draining: Draining) -> T:
    """Return the first value of `look` for which `done` is true, or its last one after `seconds`,
    or sooner where the process stops.

    `look` runs in a thread.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = await run_in_threadpool(look)
        left = deadline - time.monotonic()
        if done(seen) or left <= 0 or draining.over:
            return seen
        await anyio.sleep(min(_LOOK_EVERY, left))
