"""The child process: computes one job and reports it line by line. It has no database and writes no row.

`python -m worker.child train|ingest`, started by `worker.process`. It imports what its kind of job needs, says
`ready`, waits for its one job on stdin, and exits after it. When stdin closes the parent is gone, and so is the child.
"""

import os
import signal
import sys
import threading
from typing import BinaryIO, NoReturn

from app.core.logging import configure_logging, log
from app.core.settings import Settings
from worker.messages import Work, decode
from worker.parent import JobFailure, Parent, StopRequested


def main(kind: str) -> None:
    settings = Settings()
    parent = Parent(_take_stdout())
    signal.signal(signal.SIGTERM, parent.request_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which decides
    configure_logging(settings)
    if kind == "train":
        from worker.training import train as run
    else:
        from worker.ingesting import ingest as run

    parent.say("ready", {})
    line = sys.stdin.buffer.readline()
    if not line:
        return
    threading.Thread(target=_die_with_parent, daemon=True).start()
    work: Work = decode(line)
    try:
        parent.say("result", run(work, parent, settings))
    except StopRequested:
        parent.say("stopped", {})
    except JobFailure as failure:
        parent.say("failed", failure.body)
    except Exception as error:
        log.exception("job_crashed")
        parent.say(
            "failed",
            {
                "failure": {
                    "reason": "internal",
                    "detail": f"The job broke off with {type(error).__name__}; the worker's log has the details.",
                    "hint": "Run it again; if it fails the same way, report it with that log.",
                },
                "report": None,
            },
        )


def _take_stdout() -> BinaryIO:
    """Keep stdout for messages; whatever a library prints goes to stderr."""
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return messages


def _die_with_parent() -> NoReturn:
    while sys.stdin.buffer.read(1):
        pass
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    main(sys.argv[1])
