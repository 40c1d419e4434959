"""Measure latency over HTTP: at one connection against the same work in this process, and under a Poisson load.

One connection: p50 at most 1.10 times the time in process plus 2 ms. Then requests at random times, at 70 % of what 32
connections get through: p99 at most 1.5 times p50. `constant_service` is what that would be if nothing but the chance
of the arrivals made anyone wait: a queue with a server a core, each of whose calls takes the same time (M/D/c).
"""

from __future__ import annotations

import heapq
import os
import random
import statistics

from bench.load import Answers, closed_loop, open_loop, percentile
from bench.rounds import alternate, arguments, compared, emit, spread
from bench.served import in_process, same_labels, served, serving_arguments

FACTOR, MORE_MS = 1.10, 2.0
TAIL = 1.5
SHARE = 0.7


def constant_service(servers: int, share: float, calls: int = 400_000) -> float:
    """Return p99 over p50 of first come, first served at `share` of the capacity, calls at random times."""
    draw, now, free, took = random.Random(0), 0.0, [0.0] * servers, []
    for _ in range(calls):
        now += draw.expovariate(share * servers)
        ended = max(now, heapq.heappop(free)) + 1.0
        heapq.heappush(free, ended)
        took.append(ended - now)
    return percentile(took, 0.99) / percentile(took, 0.50)


def main() -> None:
    parser = serving_arguments(arguments(__doc__))
    parser.add_argument("--open-connections", type=int, default=128, help="at most so many requests are under way")
    given = parser.parse_args()
    with served(given) as service:
        classifier, images, target = service.classifier, service.images, service.target()
        answered: dict[int, str] = {}
        expected: dict[int, str] = {}

        def http_ms(_: int) -> float:
            one = closed_loop(target, images, given.seconds, 1)
            answered.update(one.labels)
            return 1000 * statistics.median(one.latencies)

        def loop_ms(_: int) -> float:
            rate, labels = in_process(classifier, images, given.seconds, 1)
            expected.update(labels)
            return 1000 / rate

        ours, theirs = alternate(http_ms, loop_ms, given.rounds)
        capacities, loads = [], list[Answers]()
        for _ in range(given.rounds):
            capacities.append(closed_loop(target, images, given.seconds, given.connections).rate)
            rate = SHARE * capacities[-1]
            loads.append(open_loop(target, images, given.seconds, rate, given.open_connections))
    halves = [1000 * percentile(one.latencies, 0.50) for one in loads]
    tails = [1000 * percentile(one.latencies, 0.99) for one in loads]
    allowed = FACTOR * statistics.median(theirs) + MORE_MS
    tail = compared(tails, halves)
    emit(
        "serve_latency",
        **compared(ours, theirs),
        target=f"p50 at most {FACTOR} x in process + {MORE_MS:g} ms",
        met=statistics.median(ours) <= allowed,
        single_ms={"http": spread(ours), "loop": spread(theirs), "allowed": round(allowed, 3)},
        poisson=tail
        | {
            "target": TAIL,
            "met": tail["ratio"] <= TAIL,
            "constant_service": round(constant_service(len(os.sched_getaffinity(0)), SHARE), 2),
            "p50_ms": spread(halves),
            "p99_ms": spread(tails),
            "capacity": spread(capacities, 1),
            "share": SHARE,
            "answered": sum(len(one.latencies) for one in loads),
            "refused": sum(len(one.refused) for one in loads),
            "failed": sum(len(one.failed) for one in loads),
        },
        same_labels=same_labels(answered, expected),
        engine=service.engine,
        backbone=given.backbone,
        size=given.size,
    )


if __name__ == "__main__":
    main()
