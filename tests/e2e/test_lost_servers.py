"""Jobs outlive the servers that they need: PostgreSQL crashes and comes back, Redis is gone when somebody cancels."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support import deployments, images
from tests.support.processes import children, group_is_gone
from tests.support.servers import Postgres, Redis, postgres, redis_process
from tests.support.services import Service
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def database_server() -> Iterator[Postgres]:
    with postgres() as server:
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("CREATE DATABASE graft")
        yield server


@pytest.fixture(scope="module")
def broker() -> Iterator[Redis]:
    with redis_process() as server:
        yield server


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, database_server: Postgres, broker: Redis) -> Iterator[Service]:
    """A team's deployment whose servers are its own. Its leases outlast a server that starts slowly."""
    home = tmp_path_factory.mktemp("servers") / "home"
    settings = {"GRAFT_BROKER_POLL_SECONDS": "1", "GRAFT_LEASE_SECONDS": "120"}
    with deployments.team(home, database_server.url("graft"), broker.url, with_worker=False, **settings) as service:
        yield service


@pytest.fixture(scope="module")
def worker(service: Service) -> Iterator[int]:
    """The process id of its one worker, which has read the dataset `textures`."""
    with deployments.celery_worker(service) as process:
        archive = images.folder_zip({"brick": 8, "moss": 8}, size=(32, 32))
        service.http.post("/v1/datasets", params={"name": "textures"}, content=archive).raise_for_status()
        assert service.wait_for_dataset("textures")["state"] == "ready"
        yield process.pid


def _submit(service: Service, **fields: Any) -> str:
    spec = {"dataset": "textures", "input_size": 32, "train": "all", "augmentation": "none", **fields}
    job_id: str = service.http.post("/v1/jobs", json=spec).raise_for_status().json()["id"]
    return job_id


def _epochs(service: Service, job_id: str) -> list[int]:
    listed = service.http.get(f"/v1/jobs/{job_id}/metrics", params={"limit": 100}).raise_for_status().json()
    return [one["epoch"] for one in listed["items"]]


def test_a_job_goes_on_when_postgresql_has_crashed_and_is_back(
    service: Service, worker: int, database_server: Postgres
) -> None:
    job_id, waiting = _submit(service, epochs=40), _submit(service, epochs=1)
    wait_for(lambda: _epochs(service, job_id))
    database_server.crash()
    refused = service.http.get(f"/v1/jobs/{job_id}")
    assert refused.status_code == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["Retry-After"]) > 0
    database_server.start()
    job = service.wait_for_job(job_id)
    assert (job["state"], job["attempt"]) == ("succeeded", 1)
    assert _epochs(service, job_id) == list(range(1, 41))
    assert service.wait_for_job(waiting)["state"] == "succeeded"


def test_jobs_are_cancelled_and_accepted_while_redis_is_down(service: Service, worker: int, broker: Redis) -> None:
    running = _submit(service, epochs=10_000)
    wait_for(lambda: _epochs(service, running))
    queued = _submit(service, epochs=10_000)
    (trainer,) = children("train", worker)
    broker.kill()
    try:
        assert service.http.post(f"/v1/jobs/{queued}:cancel").raise_for_status().json()["state"] == "cancelled"
        assert service.http.post(f"/v1/jobs/{running}:cancel").raise_for_status().json()["state"] == "cancelling"
        assert service.wait_for_job(running)["state"] == "cancelled"
        assert group_is_gone(trainer)
        accepted = _submit(service, epochs=1)
        assert service.wait_for_job(accepted)["state"] == "succeeded"
    finally:
        broker.start()
