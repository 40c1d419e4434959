"""The table of states: what may follow what."""

from itertools import product

import pytest

from app.core.errors import Conflict
from app.jobs.states import HELD, TERMINAL, TRANSITIONS, JobState, check_transition

LEGAL = {
    ("queued", "running"),
    ("queued", "cancelled"),
    ("running", "queued"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelling"),
    ("cancelling", "cancelled"),
}


@pytest.mark.parametrize(("before", "after"), list(product(JobState, JobState)))
def test_every_pair_of_states(before: JobState, after: JobState) -> None:
    if (before, after) in LEGAL:
        check_transition(before, after)
        return
    with pytest.raises(Conflict) as caught:
        check_transition(before, after)
    assert caught.value.code == "illegal_transition"
    following = sorted(there for here, there in LEGAL if here == before)
    assert (", ".join(following) or "nothing: it is final") in caught.value.detail
    assert f"{before} cannot become {after}" in caught.value.detail


def test_which_states_are_final_and_which_are_held() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert {"succeeded", "failed", "cancelled"} == TERMINAL
    assert {"running", "cancelling"} == HELD


def test_every_state_can_be_reached_and_every_job_can_end() -> None:
    def reachable(start: str) -> set[str]:
        found = {start}
        while more := {there for here, there in LEGAL if here in found} - found:
            found |= more
        return found

    assert reachable("queued") == set(JobState)
    assert all(reachable(state) & TERMINAL for state in JobState)
