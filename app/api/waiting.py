"""Wait until a condition holds, without occupying a thread or a transaction meanwhile."""

import time
from collections.abc import Callable
from typing import TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

T = TypeVar("T")
_LOOK_EVERY = 0.25  # seconds


async def until(look: Callable[[], T], done: Callable[[T], bool], seconds: float) -> T:
    """Return the first value of `look` for which `done` is true, or its last one after `seconds`.

    `look` runs in a thread.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = await run_in_threadpool(look)
        left = deadline - time.monotonic()
        if done(seen) or left <= 0:
            return seen
        await anyio.sleep(min(_LOOK_EVERY, left))
