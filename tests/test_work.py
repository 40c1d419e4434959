"""The list of kinds of job: what stands in it, what may be added, and what is refused with a reason."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.core.errors import Conflict
from app.core.settings import Settings
from app.ingestions.type import INGEST
from app.jobs.types import KNOWN, JobTypes, Resource
from app.trainings.type import TRAIN
from app.work import JOB_TYPES, register_further
from tests.support.toy_kind.type import ADD

ROOT = Path(__file__).parents[1]


def test_the_queue_knows_the_list() -> None:
    assert [KNOWN.find(kind.name) for kind in JOB_TYPES] == list(JOB_TYPES)


def test_what_a_child_runs_stands_in_the_one_file_of_its_kind() -> None:
    for one in JOB_TYPES:
        module, _, function = one.run.partition(":")
        assert f"def {function}(" in (ROOT / f"{module.replace('.', '/')}.py").read_text()


def test_kinds_are_found_by_name_and_by_slot() -> None:
    types = JobTypes()
    types.register(*JOB_TYPES, ADD)
    types.register(ADD)  # again: every part of a process may
    assert types.get("tally") is ADD
    assert types.of(Resource.gpu) == [TRAIN]
    assert [one.name for one in types.of(Resource.cpu)] == ["predict", "tally"]
    assert types.find("evaluate") is None
    with pytest.raises(Conflict, match=r"'evaluate'.*Update it"):
        types.get("evaluate")


def test_two_kinds_have_two_names() -> None:
    types = JobTypes()
    types.register(TRAIN)
    with pytest.raises(ValueError, match="two kinds of job named 'train'"):
        types.register(replace(INGEST, name="train"))


def test_a_process_that_was_told_no_kind_says_so_instead_of_ending_jobs_half_way() -> None:
    with pytest.raises(RuntimeError, match=r"import app\.work"):
        JobTypes().find("train")


def test_machines_share_jobs_of_one_slot_alone() -> None:
    with pytest.raises(ValueError, match="ingest: machines share jobs of the gpu slot alone, not of io"):
        replace(INGEST, shared=True)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("nowhere.at_all:NAME", "'nowhere.at_all:NAME' cannot be imported.*use package.module:NAME"),
        ("app.work:NOTHING", "'app.work:NOTHING' cannot be imported"),
        ("app.work:JOB_TYPES", "'app.work:JOB_TYPES' is a tuple; name a JobType"),
    ],
)
def test_what_is_no_kind_is_refused_by_name(settings: Settings, told: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"GRAFT_JOB_TYPES: {says}"):
        register_further(settings.model_copy(update={"job_types": f" {told} ,"}))
