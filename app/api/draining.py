"""Stop a server in steps: readiness fails first, then streams end, then the listener closes."""

import asyncio
import signal
import threading
from types import FrameType
from typing import Any

from app.core.logging import log


class Draining:
    """The two steps of a process that is told to stop.

    `begun`: it still answers calls, but /readyz is a 503, so that a load balancer sends no new ones. `over`, `seconds`
    later: streams and long polls end, and the server closes its listener. With 0 seconds both come at once.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.begun = False
        self.over = False

    def watch_signals(self) -> None:
        """Put these steps before the server's own handling of SIGTERM and SIGINT, if this is the main thread.

        SIGINT comes from a person who waits, so it ends streams at once. A second signal does not wait either.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._precede(number, signal.getsignal(number), loop)

    def _precede(self, number: signal.Signals, then: Any, loop: asyncio.AbstractEventLoop) -> None:
        def finish(frame: FrameType | None) -> None:
            if not self.over:
                self.over = True
                log.info("draining_over")
            if callable(then):
                then(number, frame)

        def hear(_number: int, frame: FrameType | None) -> None:
            waits = self._seconds if number is signal.SIGTERM and not self.begun else 0.0
            self.begun = True
            if waits:
                log.info("draining", seconds=waits)
                loop.call_soon_threadsafe(loop.call_later, waits, finish, None)
            else:
                finish(frame)

        signal.signal(number, hear)
