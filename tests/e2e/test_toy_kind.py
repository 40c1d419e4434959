"""A kind of job that nothing of the service names runs from end to end: `GRAFT_JOB_TYPES` is all that it is told."""

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.auth.service import ensure_workspace
from app.jobs import service as jobs
from app.jobs.doorbell import open_doorbell
from app.storage import BlobStore
from tests.support import deployments
from tests.support.images import REPOSITORY
from tests.support.services import Service
from tests.support.toy_kind.schemas import AddSpec
from tests.support.toy_kind.type import ADD

pytestmark = pytest.mark.timeout(900)

TOLD = {"GRAFT_JOB_TYPES": "tests.support.toy_kind.type:ADD", "PYTHONPATH": str(REPOSITORY)}
QUICK = {
    **{"GRAFT_LEASE_SECONDS": "3", "GRAFT_HEARTBEAT_SECONDS": "0.3", "GRAFT_SWEEP_SECONDS": "0.3"},
    "GRAFT_BLOB_GRACE_SECONDS": "0",
}


class Adding:
    """`graft up` with the kind of job, and the database below it: there is no route that queues an addition."""

    def __init__(self, service: Service) -> None:
        self.home = service.home
        self.http = service.http
        self.wait_for_job = service.wait_for_job
        self.store: BlobStore = service.stage.store
        self.database = service.database
        self.doorbell = open_doorbell(service.settings)

    def add(self, *numbers: int, pause: float = 0.0) -> str:
        """The id of an addition that waits."""
        with self.database.writing() as session:
            workspace_id: UUID = ensure_workspace(session).id
            spec = AddSpec(numbers=list(numbers), pause=pause)
            return str(jobs.submit(session, self.doorbell, ADD, workspace_id, spec, 3).id)

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
        return found

    def epochs(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get(f"/v1/jobs/{job_id}/metrics").raise_for_status().json()["items"]
        return found

    def until_epoch(self, job_id: str) -> None:
        while not self.epochs(job_id):
            assert self.job(job_id)["finished_at"] is None
            time.sleep(0.05)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy") / "home"


@contextmanager
def up(home: Path, **settings: str) -> Iterator[Adding]:
    (home / "client.json").unlink(missing_ok=True)  # of the service that was here before, at another port
    with deployments.embedded(home, **QUICK, **settings) as service:
        yield Adding(service)


@pytest.fixture
def service(home: Path) -> Iterator[Adding]:
    with up(home, **TOLD) as service:
        yield service


def test_a_new_kind_is_one_folder_and_one_line(service: Adding) -> None:
    """Queued, claimed, cancelled, resumed after its worker was killed, its result written and kept."""
    done = service.wait_for_job(service.add(1, 2, 3))
    assert (done["kind"], done["state"], done["spec"]) == ("tally", "succeeded", {"numbers": [1, 2, 3], "pause": 0.0})
    assert done["result"]["total"] == 6
    assert [one["subtotal"] for one in service.epochs(done["id"])] == [1, 3, 6]

    running, waiting = service.add(*[1] * 1000, pause=0.1), service.add(1)
    service.until_epoch(running)
    stands = service.job(waiting)
    assert (stands["state"], stands["waiting_for"], stands["queue_position"]) == ("queued", "slot", 1)
    for job_id in (waiting, running):
        service.http.post(f"/v1/jobs/{job_id}:cancel").raise_for_status()
        assert service.wait_for_job(job_id)["state"] == "cancelled"

    killed = service.add(*range(1, 21), pause=0.3)
    service.until_epoch(killed)
    os.kill(int(service.job(killed)["worker"].rpartition(":")[2]), signal.SIGKILL)
    resumed = service.wait_for_job(killed)
    assert (resumed["state"], resumed["attempt"], resumed["result"]["total"]) == ("succeeded", 2, 210)
    with service.database.reading() as session:
        attempts = {row.epoch: row.attempt for row in jobs.metrics(session, UUID(killed))}
    assert (attempts[1], attempts[20]) == (1, 2), "it began anew"

    document = service.http.get("/openapi.json").json()["components"]["schemas"]
    assert document["JobOut"]["discriminator"]["mapping"]["tally"] == "#/components/schemas/TallyJob"
    assert document["TallyJob"]["properties"]["spec"]["$ref"] == "#/components/schemas/AddSpec"
    listed = service.http.get("/v1/jobs", params={"kind": "tally"}).json()["items"]
    assert {one["id"] for one in listed} == {done["id"], running, waiting, killed}

    files = sorted((REPOSITORY / "tests/support/toy_kind").glob("*.py"))
    ours = [path for folder in ("app", "worker") for path in (REPOSITORY / folder).rglob("*.py")]
    assert [path for path in ours if "toy_kind" in path.read_text() or '"tally"' in path.read_text()] == []
    print(f"A kind of job touches {len(files)} files, its own: {', '.join(path.name for path in files)}; and one line.")


def test_its_result_is_kept_from_the_collector(home: Path) -> None:
    """A worker collects garbage when it starts, and here whatever its age."""
    with up(home, **TOLD) as service:
        kept = service.wait_for_job(service.add(5, 6))["result"]["file"]["sha256"]
        stray = service.store.put_bytes(b"nobody's").sha256
    with up(home, **TOLD) as service:
        _until_collected(service.store, stray)
        assert service.store.read(kept) == b"sums\n5\n11\n"


def test_who_does_not_know_the_kind_leaves_it_alone(home: Path) -> None:
    """Older code beside newer: it lists such jobs, keeps what they may need, and neither runs nor ends them."""
    with up(home, **TOLD) as service:
        done = service.wait_for_job(service.add(7))
        stray = service.store.put_bytes(b"nobody's either").sha256
    with up(home) as service:
        waiting = service.add(8)
        _until_collected(service.store, stray)
        assert service.store.exists(done["result"]["file"]["sha256"])
        assert service.job(done["id"])["result"] == done["result"]
        assert (service.job(waiting)["state"], service.job(waiting)["waiting_for"]) == ("queued", "worker")
        refused = service.http.post(f"/v1/jobs/{waiting}:cancel")
        assert (refused.status_code, refused.json()["code"]) == (409, "unknown_kind"), refused.text
        assert "tally" in refused.json()["detail"]
        named = service.http.get("/v1/jobs", params={"kind": "tally"})
        assert named.status_code == 422
        assert "ingest, predict, train" in json.dumps(named.json())


def _until_collected(store: BlobStore, sha256: str) -> None:
    deadline = time.monotonic() + 120
    while store.exists(sha256):
        assert time.monotonic() < deadline, "nothing was collected"
        time.sleep(0.1)
