"""Pillow without its warnings, in any number of threads."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_quiet_lock = Lock()
_quiet_depth = 0
_quiet: "warnings.catch_warnings[None] | None" = None


@contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Silence the warnings of Pillow, about bombs, EXIF and palettes: each is handled here or means nothing.

    `warnings.catch_warnings` restores the wrong state when threads overlap, so the first one in enters it and the
    last one out leaves it.
    """
    global _quiet, _quiet_depth
    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet = warnings.catch_warnings(action="ignore")
            _quiet.__enter__()
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0 and _quiet is not None:
                _quiet.__exit__(None, None, None)
                _quiet = None
