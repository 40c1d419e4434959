"""A job that is interrupted where nothing is trained yet, or nothing any more: while images are decoded, while the
trunk's features are computed, and between the model's bytes and its row."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.datasets import service as datasets
from app.jobs import service as jobs
from app.jobs.orm import Checkpoint
from app.jobs.states import JobState
from app.registry import service as registry
from app.registry.orm import Model
from tests.support.images import REPOSITORY
from tests.worker.conftest import Site, artefact, wait_for
from tests.worker.processes.test_process import inject
from worker.supervision.housekeeping import free_blobs

# Each call of `method` takes a second, as it does with large images, while the file `slow` is there.
SLOW = """
if "train" in sys.orig_argv:
    import time
    from pathlib import Path
    from {module} import {owner}
    method = {owner}.{method}
    def slowly(*arguments, **more):
        if Path({slow!r}).exists():
            time.sleep(1)
        return method(*arguments, **more)
    {owner}.{method} = slowly
"""


@pytest.mark.parametrize(
    ("phase", "module", "owner", "method"),
    [
        ("decoding", "app.vision.images.preprocessing", "Preprocessing", "load"),
        ("features", "app.vision.data.feeds", "ImageFeed", "exact_features"),
    ],
)
def test_a_deploy_before_the_first_step_costs_no_attempt(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, module: str, owner: str, method: str
) -> None:
    slow = tmp_path / "slow"
    slow.touch()
    inject(tmp_path, monkeypatch, SLOW.format(module=module, owner=owner, method=method, slow=str(slow)))
    spec = {"train": "head", "augmentation": "none", "epochs": 3, "seed": 5}
    worker = site.start()
    job_id = site.train(**spec)
    wait_for(lambda: site.job(job_id).phase == phase)
    site.stop(worker)
    job = site.job(job_id)
    assert (job.state, job.attempt, job.failure) == (JobState.queued, 0, None)
    assert site.rows(Checkpoint, job_id) == []
    assert site.scratch() == []

    slow.unlink()
    site.start()
    assert site.until(job_id, JobState.succeeded).attempt == 1
    undisturbed = site.train(**spec)
    site.until(undisturbed, JobState.succeeded)
    assert artefact(site, job_id) == artefact(site, undisturbed)


# The worker dies when everything is in the store and nothing of it in the database, once.
DIES = """
import sys
if sys.orig_argv[1:3] == ["-m", "worker"]:
    import os, signal
    import app.jobs.queue
    def dies(*_):
        open({mark!r}, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    app.jobs.queue.finish = dies
"""


def test_a_worker_that_dies_between_the_artefact_and_its_row_leaves_no_second_model(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: dict[str, Any]
) -> None:
    monkeypatch.setenv("GRAFT_LEASE_SECONDS", "3")
    mark = tmp_path / "died"
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(DIES.format(mark=str(mark)))
    monkeypatch.setenv("PYTHONPATH", f"{hook}:{REPOSITORY}")
    dying = subprocess.Popen([sys.executable, "-m", "worker"], cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    job_id = site.train_long()
    assert dying.wait(600) == -signal.SIGKILL
    assert mark.exists()
    assert site.job(job_id).state is JobState.running
    with site.stage.database.reading() as session:
        assert session.query(Model).count() == 0

    site.start()
    job = site.until(job_id, JobState.succeeded)
    assert job.attempt == 2
    assert artefact(site, job_id) == undisturbed["artefact"]
    wait_for(lambda: site.scratch() == [])
    free_blobs(site.stage.database, site.stage.store, 0.0)
    with site.stage.database.reading() as session:
        assert session.query(Model).count() == 1
        named = {
            sha256
            for referenced in (datasets.referenced_blobs, jobs.referenced_blobs, registry.referenced_blobs)
            for sha256 in referenced(session)
        }
    assert {blob.sha256 for blob in site.stage.store.list()} == named
