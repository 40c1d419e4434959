"""Compare megabytes a second of a large upload with a bare ASGI handler that writes the raw body to a file.

Both are served by uvicorn in a process of its own, and are sent the same bytes. The service also counts, hashes, and
looks at what came; the bytes are no archive, so that what is measured is receiving them. `memory_mib` is by how much
the service's peak resident memory grew. `--resumable` sends them by PATCH, as the one piece of a tus 1.0 upload, whose
bytes are also made to outlast a power cut.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from app.auth import service as auth
from app.auth.schemas import Scope
from app.core.database import Database
from app.core.migrations import migrate
from app.core.settings import Settings
from bench.rounds import alternate, arguments, clock, compared, emit, spread

MIB = 2**20
TARGET = 0.7
TARGET_MEMORY_MIB = 64


async def bare(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer as the handler to compare with: the body goes to a file, and nothing else happens."""
    if scope["type"] != "http":
        return
    with tempfile.TemporaryFile(dir=os.environ["GRAFT_HOME"]) as file:
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            file.write(message.get("body", b""))
            more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextmanager
def served(application: str, home: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", application, "--port", str(port), "--log-level", "warning", *options]
    process = subprocess.Popen(command, env={**os.environ, "GRAFT_HOME": str(home)})
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx2.get(f"{url}/healthz")
                break
            except httpx2.TransportError:
                if process.poll() is not None:
                    raise SystemExit(f"{application} did not start") from None
                time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.wait()


def send(url: str, key: str, size: int, status: int, resumable: bool = False) -> None:
    block = bytes(MIB)

    def body() -> Iterator[bytes]:
        yield b"\xff" * MIB  # no archive begins so
        for _ in range(size // MIB - 1):
            yield block

    headers = {"Authorization": f"Bearer {key}", "Content-Length": str(size)}
    if resumable:
        tus = {"Authorization": f"Bearer {key}", "Tus-Resumable": "1.0.0"}
        begun = httpx2.post(f"{url}/v1/uploads", headers={**tus, "Upload-Length": str(size)})
        headers |= {**tus, "Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
        answer = httpx2.patch(f"{url}{begun.headers['location']}", content=body(), headers=headers, timeout=600)
    else:
        answer = httpx2.post(f"{url}/v1/datasets", content=body(), headers=headers, timeout=600)
    assert answer.status_code == status, answer.text


def peak(process: subprocess.Popen[bytes]) -> int:
    """Return the peak resident memory in bytes."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the upload")
    parser.add_argument("--resumable", action="store_true", help="send by PATCH (tus 1.0)")
    options = parser.parse_args()
    size = options.mib * MIB
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        settings = Settings(home=home)
        database = Database(settings.sqlalchemy_url)
        migrate(database)
        with database.writing() as session:
            workspace = auth.ensure_workspace(session, "bench")
            _, key = auth.create_key(session, workspace.id, "bench", [Scope.write])
        database.close()
        with (
            served("bench.upload:bare", home) as (plain, _),
            served("app.api.app:create_app", home, "--factory") as (ours, process),
        ):
            send(plain, key, 16 * MIB, 204)  # what is imported late is imported now
            send(ours, key, 16 * MIB, 415, options.resumable)
            before = peak(process)
            raw, received = alternate(
                lambda _: size / MIB / clock(lambda: send(plain, key, size, 204)),
                lambda _: size / MIB / clock(lambda: send(ours, key, size, 415, options.resumable)),
                options.rounds,
            )
            grown = (peak(process) - before) / MIB
        emit(
            "resumable_upload" if options.resumable else "upload",
            mib=options.mib,
            bare_mib_per_s=spread(raw, 1),
            service_mib_per_s=spread(received, 1),
            **compared(received, raw),
            target=TARGET,
            memory_mib=round(grown, 1),
            target_memory_mib=TARGET_MEMORY_MIB,
        )


if __name__ == "__main__":
    main()
