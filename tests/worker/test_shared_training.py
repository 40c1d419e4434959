"""A job that two processes share: it is run, loses one of them, and is cancelled as one job."""

import os
import signal
from pathlib import Path

from app.jobs import service as jobs
from app.jobs.orm import EpochMetrics
from app.jobs.states import JobState
from tests.support.processes import children, group_is_gone
from tests.support.services import Service
from tests.support.waiting import wait_for
from worker.machines.ranks import _start

TWO = {"processes": 2}


def ranks_of(group: int) -> list[int]:
    """The processes of a child's group that train with it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            member_of = int((folder / "stat").read_text().rpartition(")")[2].split()[2])
            if member_of == group and b"worker.machines.rank" in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_job_loses_one_of_its_processes_and_is_run_again_to_its_end(site: Service) -> None:
    site.start_worker()
    job_id = site.train(resources=TWO, train={"last_stages": 1}, epochs=4, augmentation="none")
    site.until_training(job_id)
    (child,) = wait_for(lambda: children("train", os.getpid()))
    (rank,) = ranks_of(child)
    os.kill(rank, signal.SIGKILL)
    job = site.until(job_id, JobState.succeeded)
    assert job.attempt == 2
    assert group_is_gone(child)
    assert sorted(row.epoch for row in site.rows(EpochMetrics, job_id)) == [1, 2, 3, 4]
    assert job.spec["resources"] == {"processes": 2, "machines": 1}
    wait_for(lambda: site.scratch() == [])


def test_a_cancelled_job_leaves_none_of_its_processes(site: Service) -> None:
    site.start_worker()
    job_id = site.train(resources=TWO, epochs=10_000, head={"hidden": [1024]})
    site.until_training(job_id)
    (child,) = wait_for(lambda: children("train", os.getpid()))
    assert ranks_of(child)
    with site.stage.database.writing() as session:
        jobs.cancel(session, site.workspace.id, job_id)
    site.until(job_id, JobState.cancelled)
    assert group_is_gone(child)


def test_a_stop_that_comes_while_one_of_its_processes_starts_does_not_end_that_one() -> None:
    with _start({}) as process:  # type: ignore[typeddict-item]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1  # for it was told nothing of its part
