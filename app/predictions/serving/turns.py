"""A lock that is handed on in the order in which it was asked for: models that compute on the same cores take turns."""

import threading
from collections import deque


class Turns:
    """One at a time, first come first served; a plain lock may go to the same busy thread for ever."""

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
