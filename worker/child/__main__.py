"""The child process: computes one job and reports it line by line. It has no database and writes no row.

`python -m worker.child KIND MODULE:FUNCTION [BYTES]`, started by `worker.processes.process`. It imports what its kind
of job calls, says `ready`, waits for its one job on stdin, and exits after it. When stdin closes the parent is gone,
and so is the child; and so it is when the parent gives no sign of life while the job's lease runs out: another worker
has the job then, and may need the GPU.
"""

import os
import pkgutil
import re
import resource
import select
import signal
import sys
import threading
from typing import Any, BinaryIO, NoReturn

from app.core.errors import Unavailable
from app.core.logging import configure_logging, log
from app.core.settings import Settings
from app.jobs.states import FailureReason
from app.storage.configured import configured_store
from app.storage.disk import explained, is_disk_error
from worker.child.parent import JobFailure, Parent, Setback, StopRequested
from worker.processes import process_tree
from worker.processes.exit_reasons import LESS_MEMORY
from worker.processes.messages import LIFE_SIGN_EVERY, Kind, Work, decode
from worker.supervision.free_space import StorageCheck, storage_failure

# Several signs of life: one may come late on a busy machine.
_LEAST_SILENCE = 5 * LIFE_SIGN_EVERY


def main(function: str, memory_bytes: str | None = None) -> None:
    if memory_bytes is not None:
        # What the process writes to, its own and what it maps: an allocation beyond it fails, and harms nobody else.
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory_bytes), int(memory_bytes)))
    settings = Settings()
    parent = Parent(_take_stdout())
    signal.signal(signal.SIGTERM, parent.request_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which decides
    configure_logging(settings)
    run = pkgutil.resolve_name(function)  # of a `JobType`
    silence, busy = max(settings.lease_seconds, _LEAST_SILENCE), threading.Event()
    threading.Thread(target=_die_with_parent, args=(parent, silence, busy), daemon=True).start()
    parent.say("ready", {})
    line = sys.stdin.buffer.readline()
    if not line:
        return
    busy.set()
    work: Work = decode(line)
    try:
        parent.say("result", run(work, parent, settings))
    except StopRequested:
        parent.say("stopped", {})
    except JobFailure as failure:
        parent.say("failed", failure.body)
    except Setback as setback:
        parent.say("setback", setback.body)
    except Exception as error:
        parent.say(*_last_word(error, settings))


def _stood_still(seconds: float) -> dict[str, Any]:
    detail = f"The worker stood still for {seconds:g} s, and so its computation for this job ended itself."
    hint = "Find out what paused it: a person, a machine that slept, or one that is short of memory."
    return Setback(FailureReason.worker_lost, detail, hint).body


def _last_word(error: Exception, settings: Settings) -> tuple[Kind, dict[str, Any]]:
    """Return what to say of an error that nobody expected: a setback where it may pass, or else a failure."""
    system = _system_error(error)
    if system is not None and is_disk_error(system):
        error = explained(settings.scratch, system)
    if isinstance(error, Unavailable):  # of the blob store: a child has nothing else that could be away
        return "setback", storage_failure(error)
    log.exception("job_crashed", exc_info=error)
    if isinstance(error, MemoryError):
        reason, detail = FailureReason.out_of_memory, "The job asked for more memory than its process may have."
        return "failed", JobFailure(reason, detail, LESS_MEMORY + ".").body
    # Libraries have errors of their own for a full disk.
    problem = StorageCheck(settings, configured_store(settings)).look()
    if problem is not None:
        return "setback", problem
    detail = f"The job broke off with {type(error).__name__}; the worker's log has the details."
    hint = "Run it again; if it fails the same way, report it with that log."
    return "failed", JobFailure(FailureReason.internal, detail, hint).body


def _system_error(error: Exception) -> OSError | None:
    """Return the operating system's error that this one is or, from a library in Rust (safetensors), tells of."""
    if isinstance(error, OSError):
        return error
    told = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(told[1]), os.strerror(int(told[1]))) if told else None


def _take_stdout() -> BinaryIO:
    """Keep stdout for messages; whatever a library prints goes to stderr."""
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return messages


def _die_with_parent(parent: Parent, silence: float, busy: threading.Event) -> NoReturn:
    """End, with all that this process started, once the pipe of a `busy` child is closed or silent for so many
    seconds."""
    busy.wait()
    # Not by `sys.stdin`, whose lock Python wants at its end.
    while heard := select.select([0], [], [], silence)[0]:
        if not os.read(0, 4096):
            break
    if not heard:
        parent.leave_word("setback", _stood_still(silence))
    try:  # what it started goes first: who dropped its environment is known by its parent alone
        process_tree.end_family(None, os.getpid())
    finally:
        os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    main(*sys.argv[2:])  # the kind before it is for whoever looks at processes
