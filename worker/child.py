"""The child process: computes one job and reports it line by line. It has no database and writes no row.

`python -m worker.child train|ingest`, started by `worker.process`. It imports what its kind of job needs, says
`ready`, waits for its one job on stdin, and exits after it. When stdin closes the parent is gone, and so is the child.
"""

import os
import signal
import sys
import threading
from typing import Any, BinaryIO, NoReturn

from app.core.logging import configure_logging, log
from app.core.settings import Settings
from app.storage import Blob
from worker.messages import Kind, Work, decode, encode


class StopRequested(Exception):
    """The parent asked to stop; whatever is worth keeping has been reported."""


class JobFailure(Exception):
    """The job cannot succeed, and running it again would not help. `reason` is a `FailureReason`."""

    def __init__(self, reason: str, detail: str, hint: str | None, report: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.body = {"failure": {"reason": reason, "detail": detail, "hint": hint}, "report": report}


class Parent:
    """The child's end of the pipe."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._stop = threading.Event()

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def request_stop(self, *_: Any) -> None:
        self._stop.set()

    def progress(self, phase: str, fraction: float, eta_seconds: float | None) -> None:
        """`fraction` is 0 to 1 of the whole job."""
        self.say("progress", {"phase": phase, "progress": fraction, "eta_seconds": eta_seconds})

    def epoch(self, metrics: dict[str, Any]) -> None:
        self.say("epoch", metrics)

    def checkpoint(self, blob: Blob, epoch: int, step: int) -> None:
        """The blob is in the store already: a row may never point to bytes that are not there."""
        self.say("checkpoint", {"sha256": blob.sha256, "size": blob.size, "epoch": epoch, "step": step})

    def say(self, kind: Kind, body: dict[str, Any]) -> None:
        self._output.write(encode({"kind": kind, "body": body}))
        self._output.flush()


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
