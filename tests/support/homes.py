"""A service's home on this machine, run by any checkout: what it says of everything, and where that has changed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from bench.checkouts import Checkout
from tests.support import images
from tests.support.servers import free_port, running

PATIENCE = 600.0  # seconds; only a test that fails waits so long

# What says nothing of the home: when the service looked, who happens to run, and what it has in memory.
OF_THE_MOMENT = {"serving", "last_seen_at", "waiting_for", "queue_position", "last_used_at"}


@dataclass(frozen=True)
class Home:
    """A service's folder, and the settings beside it."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def served(self, checkout: Checkout, command: str = "up") -> Iterator[httpx2.Client]:
        """Run `graft up`, or `graft api` without a worker, of that checkout; it is stopped by a SIGTERM."""
        port = free_port()
        log = self.folder.with_suffix(".log")
        line = checkout.module("app.cli", command, "--port", str(port))
        with running(line, log, env=self._environment(checkout), cwd=self.folder) as process:
            try:
                deadline = time.monotonic() + PATIENCE
                while not _is_ready(f"http://127.0.0.1:{port}"):
                    assert process.poll() is None, "the service has ended"
                    assert time.monotonic() < deadline, "the service is not ready"
                    time.sleep(0.1)
                key = json.loads((self.folder / "client.json").read_text())["key"]
                headers = {"Authorization": f"Bearer {key}"}
                with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120) as http:
                    yield http
            except BaseException:
                print(f"--- {checkout.root} ---\n{log.read_text()[-6000:]}")
                raise
            process.terminate()
            process.wait(PATIENCE)

    def run(self, checkout: Checkout, *command: str) -> None:
        """Run another `graft` command of that checkout."""
        line, variables = checkout.module("app.cli", *command), self._environment(checkout)
        subprocess.run(line, env=variables, cwd=self.folder, check=True)

    def _environment(self, checkout: Checkout) -> dict[str, str]:
        fixed = {"GRAFT_HOME": str(self.folder), "GRAFT_WEIGHTS_DOWNLOAD": "false", "GRAFT_ENGINES": "torch"}
        fixed |= {"GRAFT_WARM_CHILDREN": "false", "OMP_NUM_THREADS": "1", "GRAFT_BLOB_GRACE_SECONDS": "2"}
        fixed["GRAFT_PREDICT_BATCH"] = "1"  # scores depend, in their last bit, on how many images are scored at once
        return checkout.environment(**fixed, **self.settings)

    def blobs(self) -> set[str]:
        """Return the names of all blobs, which are the SHA-256 of their bytes."""
        return {path.name for path in (self.folder / "blobs").glob("*/*") if len(path.name) == 64}

    def blob(self, sha256: str) -> Path:
        """Return the file of a blob, whose bytes are those of its name."""
        path = self.folder / "blobs" / sha256[:2] / sha256
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        return path


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def ended(http: httpx2.Client, job_id: str) -> dict[str, Any]:
    """Return the job once it has succeeded."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        job: dict[str, Any] = http.get(f"/v1/jobs/{job_id}", params={"wait": 30}).raise_for_status().json()
        if job["finished_at"]:
            assert job["state"] == "succeeded", job
            return job
    raise AssertionError(f"the job has not ended: {job}")


def submit(http: httpx2.Client, path: str, body: dict[str, Any]) -> str:
    """Return the new job's id."""
    answer = http.post(path, json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def model_of(http: httpx2.Client, job: dict[str, Any]) -> str:
    """Return the SHA-256 of the file of the model that the training has made."""
    return str(http.get(f"/v1/models/{job['result']['model_id']}").raise_for_status().json()["artefact_sha256"])


def photographs() -> list[bytes]:
    """Return some that the model has not seen, and some that it has."""
    return [images.jpeg(images.photo(label, 1000 + number)) for label in range(3) for number in range(4)]


def answers(http: httpx2.Client) -> list[Any]:
    """Return what the model `first` answers for each photograph, asked one by one and all at once."""
    path, kind = "/v1/models/first/predict", {"Content-Type": "image/jpeg"}
    asked: dict[str, Any] = {"params": {"top_k": 3}}
    each = [http.post(path, content=data, headers=kind, **asked).raise_for_status().json() for data in photographs()]
    files = [("file", (f"{number}.jpg", data)) for number, data in enumerate(photographs())]
    return [*each, http.post(path, files=files, **asked).raise_for_status().json()]


def seen(http: httpx2.Client) -> dict[str, Any]:
    """Return what the API says of everything that there is, by path; of files, their SHA-256."""
    found: dict[str, Any] = {}

    def look(path: str) -> list[dict[str, Any]]:
        found[path] = http.get(path).raise_for_status().json()
        return list(found[path].get("items", []))

    for dataset in look("/v1/datasets?limit=100"):
        for part in ("", "/report", "/versions", "/versions/1", "/images?limit=200"):
            look(f"/v1/datasets/{dataset['id']}{part}")
    for kind in ("train", "predict"):
        for job in look(f"/v1/jobs?kind={kind}&limit=100"):
            look(f"/v1/jobs/{job['id']}")
            look(f"/v1/jobs/{job['id']}/metrics")
            if kind == "predict" and job["state"] == "succeeded":
                rows = http.get(f"/v1/jobs/{job['id']}/predictions").raise_for_status().content
                found[f"rows of {job['id']}"] = hashlib.sha256(rows).hexdigest()
    for model in look("/v1/models?limit=100"):
        for part in ("", "/report"):
            look(f"/v1/models/{model['id']}{part}")
        rows = http.get(f"/v1/models/{model['id']}/evaluations").raise_for_status().content
        found[f"evaluations of {model['id']}"] = hashlib.sha256(rows).hexdigest()
    look("/v1/keys")
    return found


def changes(old: Any, new: Any, path: str = "") -> list[str]:
    """Return where `new` does not say what `old` does, field by field; it may say more."""
    if isinstance(old, dict) and isinstance(new, dict):
        lost = [f"{path}/{key} is gone" for key in old if key not in new]
        kept = [key for key in old if key in new and key not in OF_THE_MOMENT]
        return lost + [line for key in kept for line in changes(old[key], new[key], f"{path}/{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for number, (was, is_) in pairs for line in changes(was, is_, f"{path}/{number}")]
    return [] if old == new else [f"{path}: {json.dumps(old)[:200]} is now {json.dumps(new)[:200]}"]


def lost(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return where the second of two `seen` does not say what the first does."""
    return [line for path in old for line in changes(old[path], new.get(path), path)]


def untimed(epoch: dict[str, Any]) -> dict[str, Any]:
    """Return an epoch's metrics without what depends on how fast the machine was."""
    return {name: value for name, value in epoch.items() if name not in ("images_per_s", "duration_s")}
