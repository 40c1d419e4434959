"""Measure how long a job waits on an idle machine: from `POST /v1/jobs` to the first line of the child that runs it.

The service runs as its users start it, on an idle machine, with a child kept warm; each sample is one training of a
moment. `--mode team` (uvicorn, `celery worker`, PostgreSQL, Redis) is held against an LPUSH/BRPOP round trip between
two processes on the same Redis: at most twice that and 20 ms. `--mode embedded` (`graft up`): at most 60 ms.
Prints one JSON line for each mode, and fails if a bound was missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis

from bench.rounds import emit, note
from tests.support import deployments, images
from tests.support.images import REPOSITORY
from tests.support.servers import postgres, redis_process
from tests.support.services import Service

EMBEDDED_MS, TEAM_MS = 60.0, 20.0
SPEC = {"dataset": "tiny", "backbone": "resnet18-tiny64", "input_size": 32, "epochs": 1, "augmentation": "none"}

# Notes in a file when a training's child is ready, and when it says its first line about its job.
HOOK = """
import sys

if "worker.child" in sys.orig_argv and "train" in sys.orig_argv:
    import os, time
    import worker.child.parent

    say, said = worker.child.parent.Parent.say, []

    def noted(self, kind, body):
        now = time.monotonic_ns()
        say(self, kind, body)
        if len(said) < 2:
            said.append(kind)
            with open(os.environ["DISPATCH_NOTES"], "a") as notes:
                notes.write(("ready" if kind == "ready" else "first") + f" {now}\\n")

    worker.child.parent.Parent.say = noted
"""


@contextmanager
def running(mode: str, folder: Path, notes: Path) -> Iterator[tuple[Service, str | None]]:
    hooks = folder / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(HOOK)
    variables = {"PYTHONPATH": f"{hooks}:{REPOSITORY}", "DISPATCH_NOTES": str(notes), "OMP_NUM_THREADS": "1"}
    variables["GRAFT_WARM_CHILDREN"] = "true"
    if mode == "embedded":
        with deployments.embedded(folder / "home", **variables) as service:
            yield service, None
        return
    with ExitStack() as stack:
        server, broker = stack.enter_context(postgres()), stack.enter_context(redis_process())
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE graft")
        team = deployments.team(folder / "home", server.url("graft"), broker.url, **variables)
        yield stack.enter_context(team), broker.url


def noted(notes: Path, what: str) -> list[int]:
    """Return the times noted, in nanoseconds of the monotonic clock, which all processes share."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(what)]


def wait_for_notes(notes: Path, what: str, number: int) -> int:
    deadline = time.monotonic() + 300
    while len(found := noted(notes, what)) < number:
        if time.monotonic() > deadline:
            raise SystemExit(f"no child said its {what} line within 300 s")
        time.sleep(0.02)
    return found[number - 1]


def submit(service: Service) -> tuple[int, int, str]:
    """When the request went out on an open connection, when its answer was there, and the job's id."""
    body, headers = json.dumps(SPEC).encode(), {"Authorization": f"Bearer {service.key}"}
    # Not by the tests' client, which takes a millisecond before it sends anything.
    with closing(HTTPConnection(urlsplit(service.url).netloc)) as connection:
        connection.connect()
        began = time.monotonic_ns()
        connection.request("POST", "/v1/jobs", body, {**headers, "Content-Type": "application/json"})
        response = connection.getresponse()
        answer, answered = response.read(), time.monotonic_ns()
    if response.status != 202:
        raise SystemExit(f"POST /v1/jobs: {response.status} {answer.decode()}")
    return began, answered, json.loads(answer)["id"]


def samples(service: Service, notes: Path, number: int) -> Iterator[float]:
    """Milliseconds from the request to the child's first line."""
    archive = images.folder_zip({"brick": 8, "moss": 8}, split={"train": 8, "val": 4}, size=(32, 32))
    service.http.post("/v1/datasets", params={"name": "tiny"}, content=archive).raise_for_status()
    assert service.wait_for_dataset("tiny")["state"] == "ready"
    draw = random.Random(0)
    for taken in range(number + 1):
        wait_for_notes(notes, "ready", taken + 1)
        time.sleep(1.0 + draw.random())  # it is warm, and nothing else goes on
        began, answered, job = submit(service)
        first = wait_for_notes(notes, "first", taken + 1)
        assert service.wait_for_job(job)["state"] == "succeeded"
        note(f"{(first - began) / 1e6:.1f} ms, of which the answer took {(answered - began) / 1e6:.1f}")
        if taken:  # the first one finds caches empty and modules not imported
            yield (first - began) / 1e6


def _echo(url: str) -> None:
    with redis.Redis.from_url(url, socket_timeout=None) as client:
        while (item := client.brpop(["there"])[1]) != b"stop":  # type: ignore[index,misc]
            client.lpush("back", item)


def round_trip(url: str, number: int = 500) -> float:
    """Return the median milliseconds from an LPUSH here to its echo, by way of another process that BRPOPs."""
    echo = multiprocessing.get_context("spawn").Process(target=_echo, args=(url,))
    echo.start()
    took = []
    with redis.Redis.from_url(url, socket_timeout=None) as client:
        for _ in range(number + 50):
            began = time.perf_counter()
            client.lpush("there", b"x")
            client.brpop(["back"])
            took.append(1000 * (time.perf_counter() - began))
        client.lpush("there", b"stop")
    echo.join()
    return statistics.median(took[50:])


def measure(mode: str, number: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="graft-dispatch-") as name:
        folder = Path(name)
        notes = folder / "notes"
        with running(mode, folder, notes) as (service, redis_url):
            took = sorted(samples(service, notes, number))
            trip = round_trip(redis_url) if redis_url else None
    bound = EMBEDDED_MS if trip is None else 2 * trip + TEAM_MS
    p50 = statistics.median(took)
    figures = {"mode": mode, "jobs": number, "p50_ms": round(p50, 1), "low_ms": round(took[0], 1)}
    figures |= {"high_ms": round(took[-1], 1), "bound_ms": round(bound, 1), "met": p50 <= bound}
    return figures if trip is None else {**figures, "redis_round_trip_ms": round(trip, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--mode", choices=["embedded", "team", "both"], default="both")
    parser.add_argument("--jobs", type=int, default=20)
    given = parser.parse_args()
    met = True
    for mode in ["embedded", "team"] if given.mode == "both" else [given.mode]:
        figures = measure(mode, given.jobs)
        emit("dispatch", **figures)
        met = met and figures["met"]
    sys.exit(not met)


if __name__ == "__main__":
    main()
