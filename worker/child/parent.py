"""The child's end of the pipe, and the ways in which its work ends early."""

import os
import select
import threading
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

from pydantic import ValidationError

from app.jobs.schemas import Spec
from app.jobs.states import FailureReason
from app.storage import Blob
from worker.processes.messages import Kind, encode

S = TypeVar("S", bound=Spec)


class StopRequested(Exception):
    """The parent asked to stop; whatever is worth keeping has been reported."""


class JobFailure(Exception):
    """The job cannot succeed, and running it again would not help. `reason` is a `FailureReason`."""

    def __init__(self, reason: str, detail: str, hint: str | None, report: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.body = {"failure": {"reason": reason, "detail": detail, "hint": hint}, "report": report}


class Setback(Exception):
    """The job broke off for a reason outside it, and may well succeed when it is run again."""

    def __init__(self, reason: str, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.body = {"reason": reason, "detail": detail, "hint": hint}


def read_spec(model: type[S], spec: dict[str, Any]) -> S:
    """Return a job's spec as its kind describes it. Raises `JobFailure` for what newer code may have meant."""
    try:
        return model.model_validate(spec)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        detail = f"spec.{field} is {first['input']!r}: {first['msg']}."
        hint = "Update the worker, which may be older than the service that queued the job, or change that field."
        raise JobFailure(FailureReason.invalid_config, detail, hint) from None


class Parent:
    """The parent as the child sees it: takes reports, and may ask to stop."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._stop = threading.Event()

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def request_stop(self, *_: Any) -> None:
        self._stop.set()

    def meeting(self, port: int) -> None:
        """Report that the processes of other machines are waited for, at that port of this one."""
        self.say("meeting", {"port": port})

    def met(self) -> None:
        """Report that all of them have come."""
        self.say("met", {})

    def progress(self, phase: str, fraction: float, eta_seconds: float | None) -> None:
        """Report how far the job is: `fraction` is 0 to 1 of the whole of it."""
        self.say("progress", {"phase": phase, "progress": fraction, "eta_seconds": eta_seconds})

    def epoch(self, metrics: dict[str, Any]) -> None:
        self.say("epoch", metrics)

    def checkpoint(self, blob: Blob, epoch: int, step: int, best: bool) -> None:
        """Report a checkpoint whose blob is in the store already: a row may never point to bytes that are not there."""
        self.say("checkpoint", {"sha256": blob.sha256, "size": blob.size, "epoch": epoch, "step": step, "best": best})

    def leave_word(self, kind: Kind, body: dict[str, Any]) -> None:
        """Send a short message to a parent that may not be listening; it is dropped where the pipe is full."""
        pipe = self._output.fileno()
        with suppress(OSError):  # nobody holds the other end
            if select.select([], [pipe], [], 0)[1]:
                os.write(pipe, encode({"kind": kind, "body": body}))

    def say(self, kind: Kind, body: dict[str, Any]) -> None:
        self._output.write(encode({"kind": kind, "body": body}))
        self._output.flush()
