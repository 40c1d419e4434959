"""Load on a service from a process of its own: connections that ask one after another, or requests at random times."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import queue
import resource
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Image: TypeAlias = "bytes | Sequence[bytes]"  # what one request sends: a JPEG, or several as the parts of a form


@dataclass(frozen=True)
class Target:
    """Where images go: each body is posted to `url`; `label` is where the answer's JSON has the class, and None in it
    stands for each item of a list."""

    url: str
    headers: dict[str, str]
    label: tuple[str | int | None, ...] = ("items", 0, "predictions", 0, "label")
    form: str | None = None  # the field of a multipart form that the image is sent in, instead of as the body


@dataclass
class Answers:
    """`latencies` in seconds, of the answers with status 200; `labels` by the image's number; `cpu` seconds used."""

    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    refused: list[float] = field(default_factory=list)  # seconds until each 503 with Retry-After
    failed: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def closed_loop(target: Target, images: Sequence[Image], seconds: float, connections: int) -> Answers:
    """As many connections, each sending one image after another."""
    return _in_a_process(_closed, target, images, seconds, connections)


def open_loop(
    target: Target, images: Sequence[Image], seconds: float, rate: float, connections: int, *, from_due: bool = True
) -> Answers:
    """`rate` requests a second at random times (a Poisson process), whatever the answers.

    A latency counts from when the request was due, also where all `connections` were busy; or else from its sending.
    """
    return _in_a_process(_open, target, images, seconds, rate, connections, from_due)


def _in_a_process(work: Callable[..., None], *given: Any) -> Answers:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=work, args=(*given, answers))
    process.start()
    found: Answers = answers.get()
    process.join()
    return found


def _closed(target: Target, images: Sequence[Image], seconds: float, connections: int, out: Any) -> None:
    def work(first: int, ask: Callable[[int, float], None]) -> None:
        number = first
        while time.perf_counter() < ends:
            ask(number % len(images), time.perf_counter())
            number += connections

    began = time.perf_counter()
    ends = began + seconds
    out.put(_gather(target, images, connections, work, began))


def _open(
    target: Target, images: Sequence[Image], seconds: float, rate: float, connections: int, from_due: bool, out: Any
) -> None:
    random, due, at = Random(0), queue.SimpleQueue[tuple[int, float]](), 0.0
    while (at := at + random.expovariate(rate)) < seconds:
        due.put((due.qsize() % len(images), at))

    def work(_: int, ask: Callable[[int, float], None]) -> None:
        while True:
            try:
                number, at = due.get_nowait()
            except queue.Empty:
                return
            time.sleep(max(0.0, began + at - time.perf_counter()))
            ask(number, began + at if from_due else time.perf_counter())

    began = time.perf_counter()
    out.put(_gather(target, images, connections, work, began))


def _gather(
    target: Target,
    images: Sequence[Image],
    connections: int,
    work: Callable[[int, Callable[[int, float], None]], None],
    began: float,
) -> Answers:
    address, found = urlsplit(target.url), Answers()
    path = f"{address.path}?{address.query}" if address.query else address.path
    headers, bodies = _bodies(target, images)

    def connection(first: int) -> None:
        link = http.client.HTTPConnection(str(address.hostname), address.port, timeout=120)

        def ask(number: int, due: float) -> None:
            try:
                link.request("POST", path, bodies[number], headers)
                response = link.getresponse()
                body = response.read()
                took = time.perf_counter() - due
                if response.status == 503 and response.headers["Retry-After"]:
                    found.refused.append(took)
                elif response.status == 200:
                    found.labels[number] = _label(json.loads(body), target.label)
                    found.latencies.append(took)
                else:
                    found.failed.append(f"{response.status} {body[:100]!r}")
            except (OSError, http.client.HTTPException) as error:
                found.failed.append(repr(error))
                link.close()

        work(first, ask)
        link.close()

    cpu = _cpu()  # what came before, the imports, is not part of the load
    threads = [threading.Thread(target=connection, args=(first,)) for first in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.seconds, found.cpu = time.perf_counter() - began, _cpu() - cpu
    return found


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _bodies(target: Target, images: Sequence[Image]) -> tuple[dict[str, str], Sequence[bytes]]:
    groups = [[one] if isinstance(one, bytes) else one for one in images]
    if target.form is None:
        return target.headers | {"Content-Type": "image/jpeg"}, [image for (image,) in groups]
    line = "e6f1b2"
    head = f'--{line}\r\nContent-Disposition: form-data; name="{target.form}"; filename="x.jpg"\r\n'
    before, after = f"{head}Content-Type: image/jpeg\r\n\r\n".encode(), f"--{line}--\r\n".encode()
    headers = target.headers | {"Content-Type": f"multipart/form-data; boundary={line}"}
    return headers, [b"".join(before + image + b"\r\n" for image in group) + after for group in groups]


def _label(answer: Any, path: Sequence[str | int | None]) -> str:
    """What the answer has at `path`; of several items, their labels with commas."""
    if not path:
        return str(answer)
    if path[0] is None:
        return ",".join(_label(item, path[1:]) for item in answer)
    return _label(answer[path[0]], path[1:])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
