"""Explain a child that ended without a last word."""

import signal

from app.jobs.states import FailureReason
from worker.processes.oom import OomKills

LESS_MEMORY = "Lower batch_size or input_size, or give the worker more memory"


def death(returncode: int, before: OomKills, after: OomKills) -> dict[str, str]:
    """Return the failure, from the exit status and the kernel's counts before and after the attempt."""
    if returncode == -signal.SIGKILL:
        return _killed(before, after)
    how = _signal_name(-returncode) if returncode < 0 else f"exit status {returncode}"
    return {
        "reason": FailureReason.internal,
        "detail": f"The process that ran the job ended with {how}.",
        "hint": "The worker's log has its last words.",
    }


def _killed(before: OomKills, after: OomKills) -> dict[str, str]:
    for where, one, two in (
        ("in the worker's control group", before.group, after.group),
        ("on the worker's machine", before.machine, after.machine),
    ):
        if one is not None and two is not None and two > one:
            return {
                "reason": FailureReason.out_of_memory,
                "detail": "The process that ran the job was killed (SIGKILL), and the kernel ended a process for lack "
                f"of memory {where} while it ran.",
                "hint": f"{LESS_MEMORY}; the kernel's log names the process.",
            }
    counted = after.group is not None or after.machine is not None
    return {
        "reason": FailureReason.killed,
        "detail": "The process that ran the job was killed (SIGKILL), "
        + (
            "and the kernel ended none for lack of memory meanwhile: somebody killed it."
            if counted
            else "by somebody or for lack of memory: this machine's kernel does not say which."
        ),
        "hint": "Find out who kills processes on that machine: a person, a script, a service manager's limit."
        if counted
        else f"{LESS_MEMORY} if memory was short then; else find out who kills processes on that machine.",
    }


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
