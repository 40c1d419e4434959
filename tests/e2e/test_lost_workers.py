"""A job outlives its worker: after a deploy (SIGTERM), after a crash (SIGKILL), with the broker emptied."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support import deployments, images
from tests.support.servers import free_port
from tests.support.services import Service

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, empty_postgres: Callable[[], str], redis_url: str
) -> Iterator[Service]:
    """The team's deployment without a worker; workers look by themselves every second, as none may hear a ring."""
    home = tmp_path_factory.mktemp("lost") / "home"
    settings = {"GRAFT_BROKER_POLL_SECONDS": "1", "GRAFT_LEASE_SECONDS": "6", "GRAFT_SWEEP_SECONDS": "1"}
    with deployments.team(home, empty_postgres(), redis_url, with_worker=False, **settings) as service:
        yield service


@pytest.fixture(scope="module")
def dataset(service: Service) -> str:
    archive = images.folder_zip({"brick": 40, "moss": 40, "sky": 40})
    service.http.post("/v1/datasets", params={"name": "textures"}, content=archive).raise_for_status()
    with deployments.celery_worker(service):
        ready = service.wait_for_dataset("textures")
    assert ready["state"] == "ready", ready
    return "textures"


def _submit(service: Service, dataset: str) -> str:
    """A training of some seconds an epoch."""
    spec = {"dataset": dataset, "train": "all", "epochs": 3, "batch_size": 16, "input_size": 128}
    job_id: str = service.http.post("/v1/jobs", json=spec).raise_for_status().json()["id"]
    return job_id


def _wait_for_epoch(service: Service, job_id: str, epoch: int) -> None:
    with service.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: ") and json.loads(line[6:]).get("epoch", 0) >= epoch:
                return
    raise AssertionError(f"the job ended before epoch {epoch}")


def _model_sha256(service: Service, job: dict[str, Any]) -> str:
    assert job["state"] == "succeeded", job
    model: dict[str, str] = service.http.get(f"/v1/models/{job['result']['model_id']}").json()
    return model["artefact_sha256"]


@pytest.fixture(scope="module")
def undisturbed(service: Service, dataset: str) -> str:
    """The model of a run that nothing happened to."""
    with deployments.celery_worker(service):
        return _model_sha256(service, service.wait_for_job(_submit(service, dataset)))


def test_a_deploy_gives_the_job_back_and_the_next_worker_goes_on(
    service: Service, dataset: str, undisturbed: str, redis_url: str
) -> None:
    job_id = _submit(service, dataset)
    with deployments.celery_worker(service) as worker:
        _wait_for_epoch(service, job_id, 1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(300) == 0
    job = service.http.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["attempt"]) == ("queued", 0)
    redis.Redis.from_url(redis_url).flushall()
    with deployments.celery_worker(service):
        assert _model_sha256(service, service.wait_for_job(job_id)) == undisturbed
    epochs = [one["epoch"] for one in service.http.get(f"/v1/jobs/{job_id}/metrics").json()["items"]]
    assert epochs == [1, 2, 3]


@pytest.mark.long
def test_a_crashed_worker_is_noticed_and_the_job_runs_again(service: Service, dataset: str, undisturbed: str) -> None:
    job_id = _submit(service, dataset)
    with deployments.celery_worker(service) as first:
        _wait_for_epoch(service, job_id, 1)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert not _children_left(service.home), "the child outlived its parent"
    with deployments.celery_worker(service):
        job = service.wait_for_job(job_id)
    assert job["attempt"] == 2
    assert _model_sha256(service, job) == undisturbed


def test_a_worker_that_starts_without_its_broker_does_its_work(service: Service) -> None:
    elsewhere = f"redis://127.0.0.1:{free_port()}/0"
    archive = images.folder_zip({"ants": 3, "bees": 3}, size=(32, 32))
    service.http.post("/v1/datasets", params={"name": "unheard"}, content=archive).raise_for_status()
    with deployments.celery_worker(service, "Cannot connect", GRAFT_REDIS_URL=elsewhere):
        assert service.wait_for_dataset("unheard")["state"] == "ready"


def _children_left(home: Path) -> list[str]:
    """Processes of this service that compute, ten seconds after their worker was killed at the latest."""
    for _ in range(100):
        left = [path.name for path in Path("/proc").glob("[0-9]*") if _is_child(path, home)]
        if not left:
            return []
        time.sleep(0.1)
    return left


def _is_child(process: Path, home: Path) -> bool:
    try:
        command = (process / "cmdline").read_bytes()
        environment = (process / "environ").read_bytes()
    except OSError:
        return False
    return b"worker.child" in command and f"GRAFT_HOME={home}".encode() in environment
