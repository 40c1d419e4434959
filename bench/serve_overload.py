"""Ask a service three times its capacity: each request is answered or refused in time, and nothing grows.

Capacity is what 32 connections get through. Then requests come at random times at three times that rate, each with a
deadline: an answer, or a 503 with Retry-After, has to be there in time. `ratio` is the throughput meanwhile over
capacity; `without_client` grants the service the processor time that the client took, which sends three times as much.
Memory is that of the service's process: the highest in the last quarter over the highest in the first.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
from pathlib import Path

from bench.load import Answers, closed_loop, open_loop
from bench.rounds import arguments, compared, emit, note, spread
from bench.served import same_labels, served, serving_arguments

TIMES = 3.0
TARGET = 0.9
GROWTH = 1.05
GRACE = 0.5  # seconds that a connection may take beside the service's deadline


class Memory:
    """Sample the resident bytes of the process whose command line has `mark`, while the context lasts."""

    def __init__(self, mark: str) -> None:
        self.samples: list[int] = []
        self._mark = mark.encode()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def growth(self) -> float:
        quarter = max(1, len(self.samples) // 4)
        return max(self.samples[-quarter:]) / max(self.samples[:quarter])

    def _watch(self) -> None:
        while True:
            self.samples.append(sum(map(self._resident, Path("/proc").glob("[0-9]*"))))
            if self._ended.wait(0.25):
                return

    def _resident(self, process: Path) -> int:
        with contextlib.suppress(OSError):
            if self._mark in (process / "cmdline").read_bytes():
                return 4096 * int((process / "statm").read_text().split()[1])
        return 0


def main() -> None:
    parser = serving_arguments(arguments(__doc__, rounds=3))
    parser.add_argument("--overload-seconds", type=float, default=60.0)
    parser.add_argument("--open-connections", type=int, default=384, help="at most so many requests are under way")
    parser.add_argument("--deadline", type=float, default=2.0, help="seconds, of each request")
    given = parser.parse_args()
    capacities: list[float] = []
    with served(given) as service:
        before: list[Answers] = []
        for _ in range(given.rounds):
            before.append(closed_loop(service.target(), service.images, given.seconds, given.connections))
            capacities.append(before[-1].rate)
        rate = TIMES * statistics.median(capacities)
        note(f"capacity {rate / TIMES:.1f} images a second, asking for {rate:.1f}")
        with Memory(f"--home\0{service.home}") as memory:
            target, seconds = service.target(timeout=given.deadline), given.overload_seconds
            over = open_loop(target, service.images, seconds, rate, given.open_connections, from_due=False)
    slowest = max(over.latencies + over.refused, default=0.0)
    ratio = compared([over.rate], [statistics.median(capacities)])
    in_time = slowest <= given.deadline + GRACE
    freed = [one.rate_without_client for one in before]
    shares = [one.cpu / one.seconds for one in before]
    labels = {number: label for one in before for number, label in one.labels.items()}
    emit(
        "serve_overload",
        **ratio,
        target=TARGET,
        without_client=compared([over.rate_without_client], [statistics.median(freed)]),
        client_cpu={"capacity": round(statistics.median(shares), 3), "overload": round(over.cpu / over.seconds, 3)},
        met=ratio["ratio"] >= TARGET and in_time and not over.failed and memory.growth <= GROWTH,
        capacity=spread(capacities, 1),
        throughput=round(over.rate, 1),
        offered=round((len(over.latencies) + len(over.refused) + len(over.failed)) / over.seconds, 1),
        answered=len(over.latencies),
        refused=len(over.refused),
        failed=over.failed[:5],
        slowest_s=round(slowest, 3),
        deadline_s=given.deadline,
        in_time=in_time,
        memory={"growth": round(memory.growth, 3), "target": GROWTH, "highest_mib": max(memory.samples) >> 20},
        same_labels=same_labels(over.labels, labels),
        engine=service.engine,
        backbone=given.backbone,
        size=given.size,
    )


if __name__ == "__main__":
    main()
