"""What a queued job waits for: its place in the queue, and how long it will be by an honest estimate."""

import heapq
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime
from app.jobs import workers
from app.jobs.claiming import TURN
from app.jobs.orm import Job
from app.jobs.schemas import WaitingFor
from app.jobs.states import HELD, FailureReason, JobKind, JobState

_RECENT = 100  # ended jobs of a kind among which comparable ones are looked for


@dataclass(frozen=True, slots=True)
class Outlook:
    """`place` counts from 1, among the jobs that may run now. `seconds` is None where nobody can know."""

    waiting_for: WaitingFor
    place: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Prospect:
    """A training that nobody has asked for yet, as far as its turn and its duration depend on it."""

    workspace_id: UUID
    dataset_id: UUID
    backbone: str
    train: str
    priority: int
    due: bool
    machines: int = 1
    id: None = None
    held_up: None = None


def outlooks(
    session: Session, kind: JobKind, max_running: int, prospect: Prospect | None = None
) -> dict[UUID | None, Outlook]:
    """The outlook of every queued job of that kind. `max_running` is how many a workspace may run at once.

    That of a `prospect`, if it were queued now, stands under None.
    """
    queued: list[Any] = []
    etas: list[float | None] = []
    room: Counter[UUID] = Counter()
    for job in session.execute(_unfinished(kind)):
        if job.state is JobState.queued:
            queued.append(job)
        else:
            etas += [job.eta_seconds] * job.machines
            room[job.workspace_id] -= 1
    capacity = workers.capacity(session, kind)
    slots = capacity.slots
    without_slots: WaitingFor = "storage" if capacity.blocked else "worker"

    if prospect is not None:
        queued.insert(sum(job.priority >= prospect.priority for job in queued), prospect)
    found: dict[UUID | None, Outlook] = {}
    line: list[Any] = []
    for job in queued:
        if not job.due:
            found[job.id] = Outlook("machines" if job.held_up == FailureReason.machines_missing else "run_after")
        elif room[job.workspace_id] + max_running <= 0:
            found[job.id] = Outlook("workspace_limit")
        elif slots and job.machines > max(capacity.machines, 1):
            found[job.id] = Outlook("machines")
        else:
            room[job.workspace_id] -= 1
            line.append(job)
    asked = [(_likeness(job), job.machines) for job in line]
    # How long the last one takes is nobody's wait.
    waits = _simulate(asked, etas, slots, _durations(session, kind) if len(line) > 1 else {})
    for place, (job, seconds) in enumerate(zip(line, waits, strict=True), start=1):
        found[job.id] = Outlook("slot", place, seconds) if slots else Outlook(without_slots, place)
    return found


@lru_cache  # to put this together takes longer than to run it
def _unfinished(kind: JobKind) -> Select[Any]:
    """Those that run, and those that are queued, the next one first."""
    due = or_(Job.run_after.is_(None), Job.run_after <= DatabaseTime()).label("due")
    needs = workers.needed().label("machines"), Job.setback["reason"].as_string().label("held_up")
    query = select(Job.id, Job.workspace_id, Job.state, Job.eta_seconds, Job.priority, due, *needs, *_LIKENESS)
    return query.where(Job.kind == kind, Job.state.in_([JobState.queued, *HELD])).order_by(*TURN)


# Jobs that agree in these take about as long.
_LIKENESS = (
    Job.dataset_id,
    Job.spec["backbone"].as_string().label("backbone"),
    Job.spec["train"].as_string().label("train"),
)


def _likeness(row: Any) -> tuple[Any, ...]:
    return row.dataset_id, row.backbone, row.train


def _durations(session: Session, kind: JobKind) -> dict[tuple[Any, ...], float]:
    """The median running time, in seconds, of like jobs among those that ended well of late."""
    query = select(Job.ran_seconds, *_LIKENESS).where(Job.kind == kind, Job.state == JobState.succeeded)
    taken: dict[tuple[Any, ...], list[float]] = {}
    for row in session.execute(query.order_by(Job.id.desc()).limit(_RECENT)):
        taken.setdefault(_likeness(row), []).append(row.ran_seconds)
    return {likeness: statistics.median(seconds) for likeness, seconds in taken.items()}


def _simulate(
    line: Sequence[tuple[tuple[Any, ...], int]],
    etas: Sequence[float | None],
    slots: int,
    durations: dict[tuple[Any, ...], float],
) -> list[float | None]:
    """Seconds until each job of the line starts: each goes to the slots that are free first, one a machine."""
    if not slots:
        return [None] * len(line)
    unknown = math.inf
    busy = [unknown if eta is None else eta for eta in etas]
    free_at = sorted([*busy, *[0.0] * (slots - len(busy))])[-slots:]
    heapq.heapify(free_at)
    waits: list[float | None] = []
    for likeness, machines in line:
        start = [heapq.heappop(free_at) for _ in range(min(machines, slots))][-1]
        waits.append(None if start == unknown else round(start, 1))
        for _ in range(min(machines, slots)):
            heapq.heappush(free_at, start + durations.get(likeness, unknown))
    return waits
