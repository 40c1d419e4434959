"""A job's states and the one table of legal transitions."""

from enum import StrEnum

from app.core.errors import Conflict


class JobState(StrEnum):
    queued = "queued"
    running = "running"
    cancelling = "cancelling"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.queued: frozenset({JobState.running, JobState.cancelled}),
    # Back to queued: the worker was stopped or lost, and another may go on from the last checkpoint.
    JobState.running: frozenset({JobState.succeeded, JobState.failed, JobState.cancelling, JobState.queued}),
    JobState.cancelling: frozenset({JobState.cancelled}),
    JobState.succeeded: frozenset(),
    JobState.failed: frozenset(),
    JobState.cancelled: frozenset(),
}

TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)
HELD = frozenset({JobState.running, JobState.cancelling})  # a worker holds a lease on it


def check_transition(before: JobState, after: JobState) -> None:
    """Raise `Conflict` unless a job may go from `before` to `after`."""
    if after not in TRANSITIONS[before]:
        allowed = ", ".join(sorted(TRANSITIONS[before])) or "nothing: it is final"
        raise Conflict(
            f"A job that is {before} cannot become {after}. From {before} it can become: {allowed}.",
            code="illegal_transition",
        )


class FailureReason(StrEnum):
    """Why a job failed. Stable: programs decide on it."""

    invalid_data = "invalid_data"
    invalid_config = "invalid_config"
    weights_unavailable = "weights_unavailable"
    diverged = "diverged"
    out_of_memory = "out_of_memory"
    storage_full = "storage_full"
    storage_unavailable = "storage_unavailable"
    killed = "killed"
    worker_lost = "worker_lost"
    machines_missing = "machines_missing"
    deadline = "deadline"
    internal = "internal"
