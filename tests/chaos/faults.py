"""What is broken, when, and how it is mended again: a schedule drawn from a seed, carried out on a service."""

import heapq
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from sqlalchemy import select

from app.core.errors import GraftError
from app.jobs.orm import Job
from app.jobs.states import HELD
from tests.chaos.processes import Found, send
from tests.chaos.service import Breakable, Mode

# How often each fault comes, relative to the others.
_COMMON = {
    "kill_child": 6,
    "pause_child": 2,
    "kill_worker": 4,
    "terminate_worker": 3,
    "pause_worker": 3,
    "kill_api": 2,
    "terminate_api": 1,
    "pause_api": 1,
}
_TEAM = {"kill_redis": 2, "flush_redis": 3, "kill_postgres": 3}
_AWAY = (1.0, 8.0)  # seconds that a server is gone


@dataclass(frozen=True)
class Loss:
    """A job whose worker was taken away under it."""

    job_id: object
    event_seq: int  # of the last event before
    at: float  # seconds since 1970
    fault: str


def schedule(mode: Mode, seed: int, seconds: float, every: float) -> list[tuple[float, str]]:
    """Moments (seconds from the start) and faults, about one in `every` seconds; each kind comes at least once
    where there are moments enough."""
    draw = random.Random(f"faults {mode} {seed}")
    weights = _COMMON | (_TEAM if mode == "team" else {})
    moments, now = [], 0.0
    while (now := now + draw.uniform(0.4, 1.6) * every) < seconds:
        moments.append(now)
    kinds = draw.sample(list(weights), len(weights))
    kinds += draw.choices(list(weights), list(weights.values()), k=len(moments))
    return list(zip(moments, kinds, strict=False))


class Attendance:
    """When there was nobody who could have noticed a lost worker."""

    def __init__(self) -> None:
        self._looked_at = time.time()
        self._gaps: list[tuple[float, float]] = []

    def look(self, at_work: bool) -> None:
        """To be called about once a second."""
        now = time.time()
        if not at_work:
            self._gaps.append((self._looked_at, now))
        self._looked_at = now

    def between(self, begin: float, end: float) -> float:
        """Seconds of that time in which somebody was there."""
        away = sum(max(min(end, until) - max(begin, since), 0.0) for since, until in self._gaps)
        return end - begin - away


class Breaker:
    """Carries out faults. What it has broken and not yet mended stands in `mends`, by the time when that is due."""

    def __init__(self, service: Breakable, seed: int) -> None:
        self._service = service
        self._random = random.Random(f"victims {seed}")
        self._mends: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()  # so that two mends due at one moment need not be compared
        self._paused: set[int] = set()
        self.done: Counter[str] = Counter()
        self.attendance = Attendance()
        self.losses: list[Loss] = []

    def inject(self, fault: str) -> None:
        """Break something of that kind, if there is one now."""
        if getattr(self, f"_{fault}")():
            self.done[fault] += 1

    def look(self) -> None:
        """Note whether a worker is at work: started, which shows by its children, and with a database to look at."""
        started = {child.parent for child in self._service.children()} & set(self._service.worker_pids())
        self.attendance.look(bool(started - self._paused) and "postgres" not in self._service.down)

    def mend_what_is_due(self, everything: bool = False) -> None:
        while self._mends and (everything or self._mends[0][0] <= time.monotonic()):
            heapq.heappop(self._mends)[2]()

    def _later(self, seconds: float, mend: Callable[[], None]) -> None:
        heapq.heappush(self._mends, (time.monotonic() + seconds, next(self._numbers), mend))

    # Processes

    def _kill_child(self) -> bool:
        return self._to_a_child(signal.SIGKILL) is not None

    def _pause_child(self) -> bool:
        child = self._to_a_child(signal.SIGSTOP)
        return child is not None and self._wake(child.pid, self._random.uniform(2, 2 * self._lease))

    def _kill_worker(self) -> bool:
        return self._to_a_worker(signal.SIGKILL, "kill_worker") is not None

    def _terminate_worker(self) -> bool:
        return self._to_a_worker(signal.SIGTERM, None) is not None

    def _pause_worker(self) -> bool:
        worker = self._to_a_worker(signal.SIGSTOP, "pause_worker")
        return worker is not None and self._wake(worker, 2 * self._lease)

    def _kill_api(self) -> bool:
        return self._to_the_api(signal.SIGKILL)

    def _terminate_api(self) -> bool:
        return self._to_the_api(signal.SIGTERM)

    def _pause_api(self) -> bool:
        pid = self._service.api.pid
        return self._to_the_api(signal.SIGSTOP) and pid is not None and self._wake(pid, 5.0)

    def _to_a_child(self, number: signal.Signals) -> Found | None:
        children = [one for one in self._service.children() if one.pid not in self._paused]
        if not children:
            return None
        child = self._random.choice(sorted(children, key=lambda one: one.pid))
        send(child.pid, number)
        return child

    def _to_a_worker(self, number: signal.Signals, lost_by: str | None) -> int | None:
        workers = sorted(pid for pid in self._service.worker_pids() if pid not in self._paused)
        if not workers or (number is signal.SIGSTOP and len(workers) < 2):  # one is left to notice
            return None
        worker = self._random.choice(workers)
        before = time.time()
        send(worker, number)
        if lost_by is not None:
            self.losses += [Loss(job_id, seq, before, lost_by) for job_id, seq in self._held_by(worker)]
        return worker

    def _to_the_api(self, number: signal.Signals) -> bool:
        pid = self._service.api.pid
        if pid is None or pid in self._paused:
            return False
        send(pid, number)
        return True

    def _wake(self, pid: int, seconds: float) -> bool:
        def wake() -> None:
            self._paused.discard(pid)
            send(pid, signal.SIGCONT)

        self._paused.add(pid)
        self._later(seconds, wake)
        return True

    def _held_by(self, worker: int) -> list[tuple[object, int]]:
        held = select(Job.id, Job.event_seq).where(Job.state.in_(HELD), Job.worker.like(f"%:{worker}"))
        try:
            with self._service.database.reading() as session:
                return [(job_id, seq) for job_id, seq in session.execute(held)]
        except GraftError:
            return []

    # Servers

    def _kill_redis(self) -> bool:
        redis = self._service.redis
        if redis is None or "redis" in self._service.down:
            return False
        redis.kill()
        self._back("redis", redis.start)
        return True

    def _flush_redis(self) -> bool:
        if self._service.redis is None or "redis" in self._service.down:
            return False
        self._service.redis.flush()
        return True

    def _kill_postgres(self) -> bool:
        postgres = self._service.postgres
        if postgres is None or "postgres" in self._service.down:
            return False
        postgres.crash()
        self._back("postgres", postgres.start)
        return True

    def _back(self, server: str, start: Callable[[], None]) -> None:
        def mend() -> None:
            start()
            self._service.down.discard(server)

        self._service.down.add(server)
        self._later(self._random.uniform(*_AWAY), mend)

    @property
    def _lease(self) -> float:
        return self._service.settings.lease_seconds
