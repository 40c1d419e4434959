"""A short chaos run in each mode; `make chaos` is the long one."""

from pathlib import Path

import pytest

from tests.chaos.run import Plan, chaos
from tests.chaos.service import Mode

pytestmark = pytest.mark.timeout(1500)

# Long enough that a job's worker is lost and somebody else runs it; with a short lease, for the suite's sake.
SHORT = {"jobs": 30, "seconds": 50.0, "every": 4.5, "at_once": 2, "lease": 5.0}


@pytest.mark.parametrize("mode", ["embedded", "team"])
def test_no_job_is_lost_or_doubled_or_stuck(mode: Mode, tmp_path: Path) -> None:
    figures, faults = chaos(Plan(mode, seed=1, **SHORT), tmp_path)  # type: ignore[arg-type]
    assert faults == []
    assert (figures["lost"], figures["doubled"], figures["stuck"]) == (0, 0, 0)
    ended = figures["succeeded"] + figures["cancelled"] + sum(figures["failed"].values())
    assert ended == figures["submitted"] > 3, "nothing was asked for while things broke"
    assert sum(figures["injected"].values()) > 4, "hardly anything was broken"
