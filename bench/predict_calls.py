"""Call a service's predict route in this process and print what a call costs; bench.predict_path starts it.

It stands alone, so that another commit's tree can run it: what it imports of the service exists in both.

Standard input is JSON: the `home`, a `key`, a `model`, `images` in base64, and for each variant by name the shortcuts
that differ (null for a tree without them). Standard output is JSON: for each variant a list with an entry a block of
calls, in microseconds: processor time a call of the event loop's thread, that of the whole process, time a call, and
how late the event loop was on average for what was due.
"""

import asyncio
import base64
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

from app.api.app import create_app
from app.core.settings import Settings


async def call(app: Any, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
    """Send one request as a server would and return the answer's status."""
    status, sent = 0, False
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"top_k=1",
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


class Lateness:
    """How late the event loop is for something that is due every 2 ms."""

    def __init__(self) -> None:
        self.late: list[float] = []

    async def watch(self) -> None:
        while True:
            due = time.monotonic() + 0.002
            await asyncio.sleep(0.002)
            self.late.append(time.monotonic() - due)


async def measure(given: Any) -> dict[str, list[list[float]]]:
    """Ask each variant in turn for a block of calls, and return what a call of each block cost."""
    images = [base64.b64decode(one) for one in given["images"]]
    headers = [(b"authorization", f"Bearer {given['key']}".encode()), (b"content-type", b"image/jpeg")]
    path = f"/v1/models/{given['model']}/predict"
    found: dict[str, list[list[float]]] = {name: [] for name in given["variants"]}
    async with AsyncExitStack() as stack:
        apps = {}
        for name, shortcuts in given["variants"].items():
            settings = Settings(predict_queue=given["queue"])
            if shortcuts is None:
                app = create_app(settings)
            else:
                from app.api.predict_path.kept import Shortcuts

                app = create_app(settings, Shortcuts(**shortcuts))
            await stack.enter_async_context(app.router.lifespan_context(app))
            apps[name] = app
        for number in range(given["blocks"] + 1):
            for name, app in apps.items():
                sys.setswitchinterval((given["variants"][name] or {}).get("switch_seconds", 0.0005))
                lateness = Lateness()
                watcher = asyncio.create_task(lateness.watch()) if given["at_once"] > 1 else None
                began, loop, process = time.monotonic(), time.thread_time(), time.process_time()
                left, statuses = iter(range(given["calls"])), list[int]()

                async def ask(app: Any = app, left: Any = left, statuses: list[int] = statuses) -> None:
                    for one in left:
                        statuses.append(await call(app, path, headers, images[one % len(images)]))
                        await asyncio.sleep(0)

                await asyncio.gather(*(ask() for _ in range(given["at_once"])))
                assert set(statuses) <= {200, 503}, statuses
                if number:  # the first block loads the model
                    cost = time.thread_time() - loop, time.process_time() - process, time.monotonic() - began
                    late = sum(lateness.late) / max(1, len(lateness.late))
                    found[name].append([*(1e6 * one / len(statuses) for one in cost), 1e6 * late])
                if watcher is not None:
                    watcher.cancel()
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    os.environ["GRAFT_HOME"] = asked["home"]
    print(json.dumps(asyncio.run(measure(asked))))
