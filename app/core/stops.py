"""This module holds back signals to stop that reach a process before it can handle them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stops_held() -> Iterator[None]:
    """Start a process in here, and it gets no signal to stop before it lets stops in: one that comes while Python
    starts would end it, as if it had failed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_stops_in() -> None:
    """Let signals to stop reach a process that was started so, once it can handle them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
