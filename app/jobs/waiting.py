"""Say what a queued job waits for: its place in the queue, and an estimate of how long it waits."""

import heapq
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
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
from app.jobs.states import HELD, FailureReason, JobState
from app.jobs.types import KNOWN, Resource

_RECENT = 100  # ended jobs of a slot among which comparable ones are looked for


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """The place of a queued job. `place` counts from 1, among the jobs that may run now; `seconds` is None where nobody
    can know how long it waits."""

    waiting_for: WaitingFor
    place: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """A job that nobody has asked for yet, as far as its turn and its duration depend on it."""

    kind: str
    workspace_id: UUID
    dataset_id: UUID
    spec: Mapping[str, Any]
    priority: int
    due: bool
    machines: int = 1
    id: None = None
    held_up: None = None


def queue_places(
    session: Session, slot: Resource, max_running: int, planned: PlannedJob | None = None
) -> dict[UUID | None, QueuePlace]:
    """Return the place of every queued job that waits for a slot of that resource, by its id.

    `max_running` is how many jobs of a kind a workspace may run at once. The place of a `planned` job, if it were
    queued now, stands under None.
    """
    alike = {kind.name: kind.alike for kind in KNOWN.of(slot)}
    fields = tuple(sorted({name for names in alike.values() for name in names}))
    kinds = tuple(alike)
    queued: list[Any] = []
    etas: list[float | None] = []
    running: Counter[tuple[UUID, str]] = Counter()
    for job in session.execute(_unfinished(kinds, fields)):
        if job.state is JobState.queued:
            queued.append(job)
        else:
            etas += [job.eta_seconds] * job.machines
            running[job.workspace_id, job.kind] += 1
    capacity = workers.capacity(session, slot)
    slots = capacity.slots
    without_slots: WaitingFor = "storage" if capacity.blocked else "worker"

    if planned is not None:
        queued.insert(sum(job.priority >= planned.priority for job in queued), planned)
    found: dict[UUID | None, QueuePlace] = {}
    line: list[Any] = []
    for job in queued:
        if not job.due:
            found[job.id] = QueuePlace("machines" if job.held_up == FailureReason.machines_missing else "run_after")
        elif running[job.workspace_id, job.kind] >= max_running:
            found[job.id] = QueuePlace("workspace_limit")
        elif slots and job.machines > max(capacity.machines, 1):
            found[job.id] = QueuePlace("machines")
        else:
            running[job.workspace_id, job.kind] += 1
            line.append(job)
    asked = [(_likeness(job, fields), job.machines) for job in line]
    # How long the last one takes is nobody's wait.
    waits = _simulate(asked, etas, slots, _durations(session, kinds, fields) if len(line) > 1 else {})
    for place, (job, seconds) in enumerate(zip(line, waits, strict=True), start=1):
        found[job.id] = QueuePlace("slot", place, seconds) if slots else QueuePlace(without_slots, place)
    return found


@lru_cache  # to put this together takes longer than to run it
def _unfinished(kinds: tuple[str, ...], fields: tuple[str, ...]) -> Select[Any]:
    """Return the query for jobs that run or are queued, the next one first."""
    due = or_(Job.run_after.is_(None), Job.run_after <= DatabaseTime()).label("due")
    needs = workers.needed().label("machines"), Job.setback["reason"].as_string().label("held_up")
    turn = Job.id, Job.workspace_id, Job.state, Job.eta_seconds, Job.priority, due
    query = select(*turn, *needs, *_compared(fields))
    return query.where(Job.kind.in_(kinds), Job.state.in_([JobState.queued, *HELD])).order_by(*TURN)


def _compared(fields: Sequence[str]) -> list[Any]:
    """Return the columns that say which jobs take about as long; `_likeness` reads them."""
    return [Job.kind, Job.dataset_id, *(Job.spec[name].as_string().label(f"spec_{name}") for name in fields)]


def _likeness(job: Any, fields: Sequence[str]) -> tuple[Any, ...]:
    said = (job.spec.get(name) if isinstance(job, PlannedJob) else getattr(job, f"spec_{name}") for name in fields)
    return job.kind, job.dataset_id, *said


def _durations(session: Session, kinds: Sequence[str], fields: Sequence[str]) -> dict[tuple[Any, ...], float]:
    """Return the median running time, in seconds, of like jobs among those that succeeded of late."""
    query = select(Job.ran_seconds, *_compared(fields)).where(Job.kind.in_(kinds), Job.state == JobState.succeeded)
    taken: dict[tuple[Any, ...], list[float]] = {}
    for row in session.execute(query.order_by(Job.id.desc()).limit(_RECENT)):
        taken.setdefault(_likeness(row, fields), []).append(row.ran_seconds)
    return {likeness: statistics.median(seconds) for likeness, seconds in taken.items()}


def _simulate(
    line: Sequence[tuple[tuple[Any, ...], int]],
    etas: Sequence[float | None],
    slots: int,
    durations: dict[tuple[Any, ...], float],
) -> list[float | None]:
    """Return the seconds until each job of the line starts, in the slots that are free first, one a machine."""
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
