"""A child that is killed at a step of a run of 12: the next one loses that step alone, and ends with the same weights.

The suite kills at one step, `make test-long` at three of one run; with GRAFT_TEST_EVERY_STEP=1 (`make kill-points`)
each step has a run.
"""

import os
from pathlib import Path

import pytest
from sqlalchemy import update

from app.jobs.orm import Job
from app.jobs.states import JobState
from app.trainings.type import TRAIN
from tests.support.child_work import doing, kinds_with, train_and_be_killed
from tests.support.services import Service

pytestmark = pytest.mark.timeout(3600)

STEPS = 12  # two an epoch
RUN = {"head": {"hidden": [8], "dropout": 0.3}, "augmentation": "light", "epochs": 6, "batch_size": 8, "seed": 3}
EACH = [[step] for step in range(1, STEPS + 1)]
SPREAD = [[1, 6, STEPS]]
ONE = [[6]]


def run(site: Service, folder: Path, steps: list[int]) -> tuple[str, list[int], int]:
    """The model's hash, the steps in the order in which they were taken, and the number of attempts."""
    marks = folder / f"marks-{'-'.join(map(str, steps))}"
    marks.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRAFT_TEST_MARKS", str(marks))
        patch.setenv("GRAFT_TEST_STEPS", " ".join(map(str, steps)))
        job_id = site.train(**RUN)
        with site.stage.database.writing() as session:
            session.execute(update(Job).values(max_attempts=STEPS))
        worker = site.start_worker(kinds_with(doing(TRAIN, train_and_be_killed)))
        job = site.until(job_id, JobState.succeeded)
        site.stop_worker(worker)
    return site.artefact(job_id), [int(one) for one in (marks / "taken").read_text().split()], job.attempt


@pytest.mark.parametrize("killed", [ONE, pytest.param(SPREAD, marks=pytest.mark.long)], ids=["one", "three"])
def test_every_resumed_run_ends_with_the_same_weights(site: Service, tmp_path: Path, killed: list[list[int]]) -> None:
    undisturbed, taken, attempts = run(site, tmp_path, [])
    assert (taken, attempts) == (list(range(1, STEPS + 1)), 1)
    for steps in EACH if os.environ.get("GRAFT_TEST_EVERY_STEP") else killed:
        resumed, taken, attempts = run(site, tmp_path, steps)
        assert taken == sorted([*range(1, STEPS + 1), *steps]), "more was done again than the step that was lost"
        assert attempts == 1 + len(steps)
        assert resumed == undisturbed
