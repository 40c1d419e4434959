"""A training that needs more memory than it may have fails with advice, and a worker that lives says so in a file."""

import os
import socket
import subprocess
import time

from app.jobs.states import FailureReason, JobState
from tests.support.services import Service
from tests.support.waiting import wait_for

LIMIT = 1_600_000_000  # bytes; a training's process that waits holds about 0.8 GB of data with torch
LARGE = {"train": "all", "epochs": 1, "batch_size": 16, "input_size": 512, "precision": "float32"}


def test_a_training_that_needs_more_memory_fails_and_harms_nobody(site: Service) -> None:
    site.start_worker(train_memory_bytes=LIMIT, warm_children=False)
    too_large = site.train(**LARGE)
    failed = site.until(too_large, JobState.failed)
    assert failed.failure is not None
    assert failed.failure["reason"] == FailureReason.out_of_memory
    assert "batch_size" in failed.failure["hint"]
    assert failed.attempt == 1  # trying again would need as much
    small = site.train(epochs=1)
    assert site.until(small, JobState.succeeded).result is not None


def test_a_health_check_costs_a_look_at_a_file(site: Service) -> None:
    """The command is that of docker-compose.yml, with this test's folder."""
    path = site.home / "alive" / socket.gethostname()
    check = f"find {path} -newermt '-30 seconds' | grep -q ."
    assert subprocess.run(["sh", "-c", check], check=False, stderr=subprocess.DEVNULL).returncode != 0
    worker = site.start_worker()
    wait_for(path.exists)
    assert subprocess.run(["sh", "-c", check], check=False).returncode == 0
    then = time.time() - 60
    os.utime(path, (then, then))  # as if it had stood still for a minute
    assert subprocess.run(["sh", "-c", check], check=False).returncode != 0
    wait_for(lambda: path.stat().st_mtime > then + 50)  # it goes on
    site.stop_worker(worker)
    assert not path.exists()
