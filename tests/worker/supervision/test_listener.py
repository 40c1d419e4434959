"""The embedded service's doorbell, rung and heard."""

import os
import queue
from pathlib import Path

from app.jobs.doorbell import FifoDoorbell
from app.jobs.states import JobState
from tests.support.services import Service
from tests.support.waiting import PATIENCE
from worker.supervision.listener import Listener
from worker.supervision.worker import Worker


def test_a_ring_is_heard_and_nonsense_is_not(tmp_path: Path) -> None:
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    listener = Listener(tmp_path / "home" / "doorbell", heard.put)
    listener.start()
    try:
        pipe = os.open(tmp_path / "home" / "doorbell", os.O_WRONLY)
        os.write(pipe, b"\xff nonsense\n")
        os.close(pipe)
        for kind in ("ingest", "train"):
            FifoDoorbell(tmp_path / "home" / "doorbell").ring(kind)
            assert heard.get(timeout=PATIENCE) is kind
    finally:
        listener.stop()
    FifoDoorbell(tmp_path / "home" / "doorbell").ring("train")  # nobody listens any more
    assert heard.empty()


def test_a_folder_that_takes_no_pipe_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    listener = Listener(tmp_path / "file" / "doorbell", lambda _: None)
    listener.start()
    listener.stop()


def test_a_worker_runs_what_it_is_rung_for_long_before_it_would_look(site: Service) -> None:
    worker = Worker(site.stage.settings, 10 * PATIENCE, site.stage.settings.doorbell)
    worker.start()
    site.workers.append(worker)
    job_id = site.train(epochs=1)
    FifoDoorbell(site.stage.settings.doorbell).ring("train")
    site.until(job_id, JobState.succeeded)
