"""Provide a fair lock, with which models that compute on the same cores take turns."""

import threading
from collections import deque


class Turns:
    """A lock that threads get in the order of their requests. A plain lock may go to the same busy thread for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._taken = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # the lock stays taken, by the next one
            else:
                self._taken = False
