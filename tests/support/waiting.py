"""Wait for what comes true by itself."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 600.0  # seconds after which a test gives up; none passes because of it


def wait_for(look: Callable[[], Any], every: float = 0.05) -> Any:
    """Return what `look` gives once it gives something; a look may be a query, and the processors are wanted."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(every)
    raise AssertionError("it did not come true")
