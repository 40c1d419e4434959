"""What is held against the service at the end: its rows and blobs, compared with what its callers were told."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import GraftError
from app.core.outbox import Event
from app.datasets.orm import DatasetVersion
from app.jobs import checkpoints, events
from app.jobs.orm import Job
from app.jobs.states import HELD, TERMINAL, TRANSITIONS, JobState
from app.registry.orm import Model
from app.storage import BlobStore
from app.storage.configured import configured_store
from app.work import JOB_TYPES
from tests.chaos.callers import Reader
from tests.chaos.faults import Breaker
from tests.chaos.orders import Order
from tests.chaos.service import Breakable

# Why a job may fail that nothing is wrong with: whoever ran it was taken away as often as it may be tried.
_TAKEN_AWAY = {"out_of_memory", "killed", "worker_lost", "internal"}


@dataclass
class Verdict:
    """Counts of what happened, and every promise that was broken, in words."""

    submitted: int = 0
    succeeded: int = 0
    cancelled: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, what: str) -> None:
        self.faults.append(what)


def judge(service: Breakable, orders: Sequence[Order], expected: dict[str, str]) -> Verdict:
    """`expected` is the SHA-256 of what each kind of order comes to when nothing gets in its way."""
    verdict = Verdict(submitted=len(orders))
    store = configured_store(service.settings)
    with service.database.reading() as session:
        jobs = {job.id: job for job in session.scalars(select(Job))}
        known = {UUID(str(order.job_id)): order for order in orders}
        for job_id, order in known.items():
            if job_id not in jobs:
                verdict.lost += 1
                verdict.fault(f"order {order.number} was accepted as {job_id}, and there is no such job")
            else:
                _judge_job(session, store, jobs[job_id], order, expected, verdict)
        for stranger in set(jobs) - set(known):
            verdict.doubled += 1
            verdict.fault(f"{stranger} is a {jobs[stranger].kind} that nobody asked for twice")
    return verdict


def _judge_job(
    session: Session, store: BlobStore, job: Job, order: Order, expected: dict[str, str], verdict: Verdict
) -> None:
    who = f"{order.kind} {job.id} ({job.state}, attempt {job.attempt})"
    match job.state:
        case JobState.succeeded:
            verdict.succeeded += 1
        case JobState.cancelled:
            verdict.cancelled += 1
            if not order.cancelled_by_us:
                verdict.fault(f"{who} was cancelled by nobody")
        case JobState.failed:
            _judge_failure(job, order, who, verdict)
        case _:
            verdict.stuck += 1
            verdict.fault(f"{who} never ended: phase {job.phase}, worker {job.worker}, until {job.lease_expires_at}")
    if 200 in order.cancel_answers and job.state is not JobState.cancelled:
        verdict.fault(f"{who} was to be cancelled")
    if (job.finished_at is not None) != (job.state in TERMINAL):
        verdict.fault(f"{who} has finished_at {job.finished_at}")
    if (job.result is not None) != (job.state is JobState.succeeded):
        verdict.fault(f"{who} has the result {job.result}")
    if (job.failure is not None) != (job.state is JobState.failed):
        verdict.fault(f"{who} has the failure {job.failure}")
    if job.state in TERMINAL and checkpoints.newest_first(session, job.id):
        verdict.fault(f"{who} still has checkpoints")
    if order.kind == "poison" and job.state is JobState.succeeded:
        verdict.fault(f"{who} is poison and succeeded")
    _judge_history(session, job, who, verdict)
    _judge_results(session, store, job, expected.get(order.kind), who, verdict)


def _judge_failure(job: Job, order: Order, who: str, verdict: Verdict) -> None:
    failure = job.failure or {}
    reason = str(failure.get("reason"))
    verdict.failed[("poison: " if order.kind == "poison" else "") + reason] += 1
    if reason not in _TAKEN_AWAY or job.attempt != job.max_attempts:
        verdict.fault(f"{who} failed: {failure}")
    if not failure.get("hint"):
        verdict.fault(f"{who} failed without a hint: {failure}")


def _judge_history(session: Session, job: Job, who: str, verdict: Verdict) -> None:
    told = events.after(session, job.id, 0, limit=100_000)
    if [one.seq for one in told] != list(range(1, job.event_seq + 1)):
        verdict.fault(f"{who} has the events {[one.seq for one in told]} of {job.event_seq}")
    states = [JobState(one.data["state"]) for one in told if one.type == "state"]
    steps = pairwise(states)
    if not states or states[0] is not JobState.queued or states[-1] is not job.state:
        verdict.fault(f"{who} has the history {states}")
    if any(after not in TRANSITIONS[before] for before, after in steps):
        verdict.fault(f"{who} has the impossible history {states}")


def _judge_results(
    session: Session, store: BlobStore, job: Job, expected: str | None, who: str, verdict: Verdict
) -> None:
    """One result for a success, none for anything else; it can be read, and is the undisturbed run's."""
    found: Sequence[str]
    match job.kind:
        case "train":
            found = session.scalars(select(Model.artefact_sha256).where(Model.job_id == job.id)).all()
        case "ingest":
            version = select(DatasetVersion.manifest_sha256).where(DatasetVersion.dataset_id == job.dataset_id)
            found = session.scalars(version).all()
        case "predict":
            found = [job.result["file"]["sha256"]] if job.result else []
    wanted = int(job.state is JobState.succeeded)
    if len(found) > wanted:
        verdict.doubled += 1
    if len(found) < wanted:
        verdict.lost += 1
    if len(found) != wanted:
        verdict.fault(f"{who} has {len(found)} results")
    for sha256 in found:
        if expected is not None and sha256 != expected:
            verdict.fault(f"{who} came to {sha256}, undisturbed it is {expected}")
        try:
            store.read(sha256)
        except GraftError as error:
            verdict.fault(f"{who} has a result that cannot be read: {error.detail}")


def judge_streams(service: Breakable, readers: Sequence[Reader], verdict: Verdict) -> None:
    """Whoever followed a job over broken connections missed nothing and was told nothing twice."""
    with service.database.reading() as session:
        for reader in readers:
            last = session.get_one(Job, UUID(reader.job_id)).event_seq
            if reader.seen.ids != list(range(1, last + 1)):
                verdict.fault(f"the reader of {reader.job_id} was sent {reader.seen.ids} of {last}")


def times(service: Breakable, breaker: Breaker, orders: Sequence[Order]) -> dict[str, list[float]]:
    """Seconds until the jobs of lost workers were taken back, the part of them in which another worker was there to
    notice, until those jobs ran again, the part of them in which not every slot had another job, and from a cancel to
    the end, of all and of those that kept their worker."""
    noticed, attended, again, free, cancelled, obeyed = [], [], [], [], [], []
    abandoned = set()  # jobs whose worker was lost while they were being cancelled
    with service.database.reading() as session:
        spans = _spans(session)
        for loss in breaker.losses:
            later = events.after(session, loss.job_id, loss.event_seq, limit=100_000)
            told = [(one.data["state"], one.created_at.timestamp() - loss.at) for one in later if one.type == "state"]
            if not told or told[0][0] not in ("queued", "failed"):
                abandoned.add(loss.job_id)
                continue  # it had just ended, or was being cancelled
            noticed.append(told[0][1])
            attended.append(breaker.attendance.between(loss.at, loss.at + told[0][1]))
            if len(told) > 1 and told[0][0] == "queued" and told[1][0] == "running":
                again.append(told[1][1])
                kind = session.get_one(Job, loss.job_id).kind
                queued, ran = (loss.at + after for _, after in told[:2])
                free.append(again[-1] - _crowded(spans[kind], queued, ran, service.slots))
        for order in orders:
            job = session.get_one(Job, UUID(order.job_id))
            if order.cancelled_at and job.state is JobState.cancelled and job.finished_at:
                cancelled.append(max(job.finished_at.timestamp() - order.cancelled_at, 0.0))
                if job.id not in abandoned:
                    obeyed.append(cancelled[-1])
    return {
        "noticed": noticed,
        "attended": attended,
        "again": again,
        "free": free,
        "cancelled": cancelled,
        "obeyed": obeyed,
    }


Span = tuple[float, float]


def _spans(session: Session) -> dict[str, list[Span]]:
    """From when until when a slot had a job, by the jobs' kind. A lost worker's slot has one until that is noticed."""
    told = select(Job.kind, Job.id, Event.body, Event.created_at).join(Event, Event.subject_id == Job.id)
    told = told.where(Event.topic == "job.state").order_by(Job.id, Event.number)
    spans: dict[str, list[Span]] = {kind.name: [] for kind in JOB_TYPES}
    rows = session.execute(told).all()
    for (kind, job, data, since), (_, same, _, until) in pairwise([*rows, rows[-1]]):
        if JobState(data["state"]) in HELD and job == same:
            spans[kind].append((since.timestamp(), until.timestamp()))
    return spans


def _crowded(spans: Sequence[Span], begin: float, end: float, slots: int) -> float:
    """Seconds between `begin` and `end` in which all slots had a job."""
    moments = sorted({begin, end, *(one for span in spans for one in span if begin < one < end)})
    return sum(
        after - before
        for before, after in pairwise(moments)
        if sum(since <= before and after <= until for since, until in spans) >= slots
    )


def leftovers(service: Breakable) -> dict[str, Any]:
    """What should have been cleaned up: children without a worker, working folders of jobs."""
    workers = set(service.worker_pids())
    orphans = [one.pid for one in service.children() if one.parent not in workers]
    folder = service.settings.scratch
    scratch = sorted(path.name for path in folder.glob("job-*")) if folder.is_dir() else []
    return {"orphans": orphans, "scratch": scratch}


def crashes(service: Breakable, verdict: Verdict) -> list[str]:
    """Requests, and jobs that failed of it, that ended in an error which nobody expected, as the logs have them."""
    lines = [line for one in service.supervised for line in _log(service, one.name)]
    # A child whose worker was taken away breaks off too, and its job goes on elsewhere.
    crashes = ['"request_crashed"', *(['"job_crashed"'] if verdict.failed["internal"] else [])]
    return [line[-1500:] for line in lines if any(crash in line for crash in crashes)]


def _log(service: Breakable, name: str) -> list[str]:
    path = service.home / f"{name}.log"
    return path.read_text(errors="replace").splitlines() if path.exists() else []
