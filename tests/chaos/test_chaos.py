"""A short chaos run in each mode; `make test-long` has one of twice the length, and `make chaos` is the real one."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.run import Plan, chaos
from tests.chaos.service import Mode

pytestmark = pytest.mark.timeout(1500)

# Long enough that a job's worker is lost and somebody else runs it; with a short lease, for the suite's sake.
SHORT = {"jobs": 12, "seconds": 24.0, "every": 3.5, "at_once": 2, "lease": 5.0}
LONGER = {"jobs": 30, "seconds": 50.0, "every": 4.5, "at_once": 2, "lease": 5.0}


def keeps_its_promises(mode: Mode, folder: Path, broken: int, **plan: Any) -> None:
    figures, faults = chaos(Plan(mode, seed=1, **plan), folder)
    assert faults == []
    assert (figures["lost"], figures["doubled"], figures["stuck"]) == (0, 0, 0)
    ended = figures["succeeded"] + figures["cancelled"] + sum(figures["failed"].values())
    assert ended == figures["submitted"] > 3, "nothing was asked for while things broke"
    assert sum(figures["injected"].values()) > broken, "hardly anything was broken"


@pytest.mark.parametrize("mode", ["embedded", "team"])
def test_no_job_is_lost_or_doubled_or_stuck(mode: Mode, tmp_path: Path) -> None:
    keeps_its_promises(mode, tmp_path, broken=2, **SHORT)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["embedded", "team"])
def test_no_job_is_lost_or_doubled_or_stuck_in_twice_the_time(mode: Mode, tmp_path: Path) -> None:
    keeps_its_promises(mode, tmp_path, broken=4, **LONGER)
