"""A chaos run from start to end: a service, callers, faults by a seeded schedule, and the verdict.

`python -m tests.chaos.run --mode team --jobs 2000 --seconds 1800 --seed 1` (`make chaos`) prints one JSON line and
fails if a promise was broken.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import httpx2
from sqlalchemy import select

from app.core.settings import Settings
from app.datasets.orm import DatasetVersion
from tests.chaos.callers import Caller, client
from tests.chaos.faults import Breaker, schedule
from tests.chaos.orders import ARCHIVE, DATASET, TRAININGS, Kind, List, Order, Orders, prediction
from tests.chaos.processes import Found, processes_of
from tests.chaos.service import Breakable, Mode, breakable
from tests.chaos.verdict import Verdict, crashes, judge, judge_streams, leftovers, times
from tests.chaos.watch import Watch

_PATIENCE = 600.0  # seconds without a fault after which a job that has not ended is stuck


@dataclass(frozen=True)
class Plan:
    """How much is done to the service, and for how long. Times are seconds."""

    mode: Mode
    jobs: int
    seconds: float
    seed: int = 0
    every: float = 12.0  # between faults
    workers: int = 2
    at_once: int = 4  # orders of each list under way
    lease: float = Settings.model_fields["lease_seconds"].default

    def settings(self) -> dict[str, str]:
        # Garbage that is two minutes old is collected, so that the collector is at work beside everything else.
        return {"GRAFT_BLOB_GRACE_SECONDS": "120", "GRAFT_LEASE_SECONDS": str(self.lease)}


def chaos(plan: Plan, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Run it; gives the figures and every promise that was broken."""
    with breakable(plan.mode, folder / "home", plan.workers, **plan.settings()) as service:
        orders, expected = _undisturbed(service)
        specs = {order.kind: order.body for order in orders}
        caller, breaker, watch, seconds = _disturb(service, plan, specs)
        _wait(service, lambda: all(order.ended for order in caller.accepted), caller)
        for reader in caller.readers:
            reader.join(30)
            reader.given_up.set()
        caller.close()
        watch.stop()
        left = _until_clean(service)
        orders += caller.accepted
        verdict = judge(service, orders, expected)
        judge_streams(service, caller.readers, verdict)
        took = times(service, breaker, orders)
        verdict.faults += [*caller.refused, *watch.faults, *crashes(service, verdict)]
        service.stop()
        left["alive_after_stop"] = [one.pid for one in _processes_left(service)]
        verdict.faults += [f"left behind: {what}: {which}" for what, which in left.items() if which]
        return _figures(plan, seconds, caller, breaker, verdict, took), verdict.faults


def _undisturbed(service: Breakable) -> tuple[list[Order], dict[str, str]]:
    """Upload the shared dataset and run one order of each kind while nothing is broken yet; what they came to."""
    with client(service) as http:
        _wait(service, lambda: _answers(http))
        accepted = http.post("/v1/datasets", params={"name": DATASET}, content=ARCHIVE).raise_for_status().json()
        upload = Order(0, "upload", "", job_id=accepted["job_id"])
        _wait(service, lambda: http.get(f"/v1/datasets/{DATASET}").json()["state"] == "ready")
        results = {"upload": _manifest(service)}
        trainings = [_ordered(http, kind, "/v1/jobs", body) for kind, body in TRAININGS.items()]
        for order in trainings:
            model = http.get(f"/v1/models/{_result(service, http, order)['model_id']}").raise_for_status().json()
            results[order.kind] = model["artefact_sha256"]
        images = [
            one["sha256"] for one in http.get(f"/v1/datasets/{DATASET}/images").raise_for_status().json()["items"]
        ]
        predict = _ordered(http, "predict", "/v1/jobs:predict", prediction(model["id"], images))
        results["predict"] = _result(service, http, predict)["file"]["sha256"]
    return [upload, *trainings, predict], results


def _ordered(http: httpx2.Client, kind: Kind, path: str, body: dict[str, Any]) -> Order:
    return Order(0, kind, "", body, job_id=http.post(path, json=body).raise_for_status().json()["id"])


def _result(service: Breakable, http: httpx2.Client, order: Order) -> dict[str, Any]:
    _wait(service, lambda: http.get(f"/v1/jobs/{order.job_id}").json()["finished_at"])
    job = http.get(f"/v1/jobs/{order.job_id}").json()
    assert job["state"] == "succeeded", job
    result: dict[str, Any] = job["result"]
    return result


def _manifest(service: Breakable) -> str:
    with service.database.reading() as session:
        return session.scalars(select(DatasetVersion.manifest_sha256)).one()


def _answers(http: httpx2.Client) -> bool:
    try:
        return bool(http.get("/readyz").status_code == 200)
    except httpx2.TransportError:
        return False


def _disturb(service: Breakable, plan: Plan, specs: dict[Kind, dict[str, Any]]) -> tuple[Caller, Breaker, Watch, float]:
    """Callers at work while faults come by the schedule; at the end everything that was broken is mended."""
    began = time.monotonic()
    lists = [Orders(plan.seed, what, specs) for what in get_args(List)]
    caller = Caller(service, lists, plan.jobs, plan.at_once, until=lambda: time.monotonic() - began >= plan.seconds)
    breaker, watch = Breaker(service, plan.seed), Watch(service)
    caller.start()
    watch.start()
    faults = schedule(plan.mode, plan.seed, plan.seconds, plan.every)
    looked_at = began
    while caller.is_alive() and (now := time.monotonic()) - began < plan.seconds:
        breaker.mend_what_is_due()
        service.look_after()
        if now - looked_at >= 1.0:
            breaker.look()
            looked_at = now
        if faults and now - began >= faults[0][0]:
            _, fault = faults.pop(0)
            breaker.inject(fault)
            _note(f"{now - began:6.0f} s  {fault}, {len(caller.accepted)} jobs accepted")
        time.sleep(0.1)
    breaker.mend_what_is_due(everything=True)
    seconds = time.monotonic() - began
    _wait(service, lambda: not caller.is_alive())
    return caller, breaker, watch, seconds


def _wait(service: Breakable, done: Callable[[], Any], caller: Caller | None = None) -> bool:
    """Look after the service until something has come true. False if it does not."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        service.look_after()
        if caller is not None:
            caller.look()
        if done():
            return True
        time.sleep(0.2)
    return False


def _until_clean(service: Breakable) -> dict[str, Any]:
    """What is still left behind once there was time to clean up."""
    _wait(service, lambda: not any(leftovers(service).values()))
    return leftovers(service)


def _processes_left(service: Breakable) -> list[Found]:
    deadline = time.monotonic() + 60
    while (left := processes_of(service.home)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _figures(
    plan: Plan, seconds: float, caller: Caller, breaker: Breaker, verdict: Verdict, took: dict[str, list[float]]
) -> dict[str, Any]:
    return {
        "chaos": plan.mode,
        "seed": plan.seed,
        "seconds": round(seconds),
        "submitted": verdict.submitted,
        "accepted": dict(sorted(Counter(order.kind for order in caller.accepted).items())),
        "asked_again": caller.asked_again,
        "succeeded": verdict.succeeded,
        "cancelled": verdict.cancelled,
        "failed": dict(sorted(verdict.failed.items())),
        "lost": verdict.lost,
        "doubled": verdict.doubled,
        "stuck": verdict.stuck,
        "other_faults": len(verdict.faults),
        "streams": len(caller.readers),
        "stream_connections": sum(reader.seen.connections for reader in caller.readers),
        "injected": dict(sorted(breaker.done.items())),
        "lost_workers": len(took["noticed"]),
        "noticed_s": _spread(took["noticed"]),
        "noticed_with_a_worker_there_s": _spread(took["attended"]),
        "again_s": _spread(took["again"]),
        "again_with_a_slot_free_s": _spread(took["free"]),
        "cancelled_s": _spread(took["cancelled"]),
        "cancelled_with_its_worker_there_s": _spread(took["obeyed"]),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": round(os.getloadavg()[0], 1)},
    }


def _spread(values: list[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"median": round(sorted(values)[len(values) // 2], 1), "worst": round(max(values), 1)}


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--mode", choices=get_args(Mode), default="embedded")
    parser.add_argument("--jobs", type=int, default=2000, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=1800, help="stop after so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=12.0, help="seconds between faults")
    parser.add_argument("--keep", type=Path, help="leave logs and data in this new folder")
    given = parser.parse_args()
    plan = Plan(given.mode, given.jobs, given.seconds, given.seed, given.every)
    with tempfile.TemporaryDirectory(prefix="graft-chaos-") as scratch:
        figures, faults = chaos(plan, given.keep or Path(scratch))
    for fault in faults:
        _note(fault)
    print(json.dumps(figures), flush=True)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
