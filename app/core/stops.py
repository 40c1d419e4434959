"""Stops of a whole process group that reach a process before it can take them."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stops_held() -> Iterator[None]:
    """A process that is started in here gets no stop before it lets stops in: one that comes while Python starts would
    end it, as if it had failed."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_stops_in() -> None:
    """In a process that was started so, once it knows what to do about them."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
