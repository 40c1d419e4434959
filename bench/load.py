"""Put load on a service from a process of its own: connections that ask in turn, or requests at random times.

One event loop and no HTTP library: on a machine of few cores what the client takes is taken from the service.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import resource
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias, cast
from urllib.parse import urlsplit

import uvloop

PATIENCE = 120.0  # seconds until an answer that does not come counts as failed

Image: TypeAlias = "bytes | Sequence[bytes]"  # what one request sends: a JPEG, or several as the parts of a form


@dataclass(frozen=True)
class Target:
    """Say where images go: each body is posted to `url`; `label` is where the answer's JSON has the class, and None in
    it stands for each item of a list."""

    url: str
    headers: dict[str, str]
    label: tuple[str | int | None, ...] = ("items", 0, "predictions", 0, "label")
    form: str | None = None  # the field of a multipart form that the image is sent in, instead of as the body


@dataclass
class Answers:
    """Hold `latencies` in seconds, of answers with status 200; `labels` by the image's number; `cpu` seconds used."""

    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    refused: list[float] = field(default_factory=list)  # seconds until each 503 with Retry-After
    failed: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds

    @property
    def rate_without_client(self) -> float:
        """Return what the rate would be if the service had also had the processor time that the client took."""
        return self.rate / (1 - self.cpu / (self.seconds * len(os.sched_getaffinity(0))))


def closed_loop(target: Target, images: Sequence[Image], seconds: float, connections: int) -> Answers:
    """Send one image after another on each of so many connections."""
    return _in_a_process(_closed, target, images, seconds, connections)


def open_loop(
    target: Target, images: Sequence[Image], seconds: float, rate: float, connections: int, *, from_due: bool = True
) -> Answers:
    """Send `rate` requests a second at random times (a Poisson process), whatever the answers.

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


# Send an image, by its number; its latency counts from a moment on.
Ask: TypeAlias = "Callable[[int, float], Awaitable[None]]"


def _closed(target: Target, images: Sequence[Image], seconds: float, connections: int, out: Any) -> None:
    async def work(first: int, ask: Ask) -> None:
        number = first
        while time.perf_counter() < ends:
            await ask(number % len(images), time.perf_counter())
            number += connections

    began = time.perf_counter()
    ends = began + seconds
    out.put(uvloop.run(_gather(target, images, connections, work, began)))


def _open(
    target: Target, images: Sequence[Image], seconds: float, rate: float, connections: int, from_due: bool, out: Any
) -> None:
    random, due, at = Random(0), deque[tuple[int, float]](), 0.0
    while (at := at + random.expovariate(rate)) < seconds:
        due.append((len(due) % len(images), at))

    async def work(_: int, ask: Ask) -> None:
        while due:
            number, at = due.popleft()
            await asyncio.sleep(began + at - time.perf_counter())
            await ask(number, began + at if from_due else time.perf_counter())

    began = time.perf_counter()
    out.put(uvloop.run(_gather(target, images, connections, work, began)))


async def _gather(
    target: Target,
    images: Sequence[Image],
    connections: int,
    work: Callable[[int, Ask], Awaitable[None]],
    began: float,
) -> Answers:
    found = Answers()
    requests = _requests(target, images)
    address = urlsplit(target.url)

    async def connection(first: int) -> None:
        link: _Connection | None = None

        async def ask(number: int, due: float) -> None:
            nonlocal link
            try:
                async with asyncio.timeout(PATIENCE):
                    if link is None or link.closed:
                        link = await _Connection.open(str(address.hostname), address.port or 80)
                    status, retry, body = await link.ask(requests[number])
                took = time.perf_counter() - due
                if status == 503 and retry:
                    found.refused.append(took)
                elif status == 200:
                    found.labels[number] = _label(json.loads(body), target.label)
                    found.latencies.append(took)
                else:
                    found.failed.append(f"{status} {body[:100]!r}")
            except (OSError, ValueError) as error:  # a timeout is an OSError, too
                found.failed.append(repr(error))
                if link is not None:
                    link.close()

        await work(first, ask)
        if link is not None:
            link.close()

    cpu = _cpu()  # what came before, the imports, is not part of the load
    async with asyncio.TaskGroup() as tasks:
        for first in range(connections):
            tasks.create_task(connection(first))
    found.seconds, found.cpu = time.perf_counter() - began, _cpu() - cpu
    return found


class _Connection(asyncio.Protocol):
    """Speak HTTP/1.1, one request after another, and read of an answer's head the little that is needed here."""

    def __init__(self) -> None:
        self.closed = False
        self._received = bytearray()
        self._size = 0  # of the answer, once its head is there
        self._body_at = 0
        self._answer: asyncio.Future[tuple[int, bool, bytes]] | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> _Connection:
        _, link = await asyncio.get_running_loop().create_connection(cls, host, port)
        return link

    async def ask(self, request: Sequence[bytes]) -> tuple[int, bool, bytes]:
        """Return the status, whether there is a Retry-After, and the body. Raises OSError and ValueError."""
        self._received.clear()
        self._size = 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.writelines(request)
        return await self._answer

    def close(self) -> None:
        self.closed = True
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answer is None or self._answer.done():
            return
        if not self._size:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            self._head = bytes(self._received[:end]).lower()
            _, told, rest = self._head.partition(b"\r\ncontent-length:")
            if not told:
                self._answer.set_exception(ValueError(f"an answer without a length: {self._head[:100]!r}"))
                return
            self._body_at = end + 4
            self._size = self._body_at + int(rest.partition(b"\r\n")[0])
        if len(self._received) >= self._size:
            self.closed = b"\r\nconnection: close" in self._head
            status, body = int(self._head[9:12]), bytes(self._received[self._body_at : self._size])
            self._answer.set_result((status, b"\r\nretry-after:" in self._head, body))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the connection was closed"))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _requests(target: Target, images: Sequence[Image]) -> list[tuple[bytes, bytes]]:
    """Return head and body of each image's request."""
    address, line, kind = urlsplit(target.url), "e6f1b2", "image/jpeg"
    groups = [[one] if isinstance(one, bytes) else one for one in images]
    if target.form is None:
        bodies = [image for (image,) in groups]
    else:
        part = f'--{line}\r\nContent-Disposition: form-data; name="{target.form}"; filename="x.jpg"\r\n'
        before, after = f"{part}Content-Type: {kind}\r\n\r\n".encode(), f"--{line}--\r\n".encode()
        bodies = [b"".join(before + image + b"\r\n" for image in group) + after for group in groups]
        kind = f"multipart/form-data; boundary={line}"
    path = f"{address.path}?{address.query}" if address.query else address.path
    headers = {"Host": address.netloc, **target.headers, "Content-Type": kind}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return [(f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body) for body in bodies]


def _label(answer: Any, path: Sequence[str | int | None]) -> str:
    """Return what the answer has at `path`; of several items, their labels with commas."""
    if not path:
        return str(answer)
    if path[0] is None:
        return ",".join(_label(item, path[1:]) for item in answer)
    return _label(answer[path[0]], path[1:])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
