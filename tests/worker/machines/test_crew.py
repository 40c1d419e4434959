"""What the leader of a job makes of the machines that share it: it waits, goes on, or gives the job back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.settings import Settings
from app.jobs import claiming, sharing
from app.jobs.orm import JobMember
from app.jobs.queue import Claim
from tests.support.factories import EXPIRED, training, worker
from worker.machines.crew import Breakup, Crew

LEADER, SECOND = "leader", "second"


@pytest.fixture
def session(postgresql_url: str) -> Iterator[Session]:
    database = Database(postgresql_url)
    with Session(database.engine, expire_on_commit=False) as session:
        for name in (LEADER, SECOND, "third"):
            worker(session, name)
        yield session
    database.close()


def crew(session: Session, postgresql_url: str, home: Path, **changed: Any) -> Crew:
    """The crew of a new job of two machines that wait for each other."""
    training(session, resources={"machines": 2})
    job = claiming.claim(session, ["train"], LEADER, 60)
    assert job is not None
    settings = Settings(home=home, database_url=postgresql_url, worker_address="10.0.0.1", **changed, _env_file=None)  # type: ignore[call-arg]
    made = Crew(settings, Claim(job.id, job.epoch), LEADER, 2)
    assert made.breakup(session) is None  # the child has not said yet where they meet
    made.gather(session, 4000)
    return made


def come(session: Session) -> JobMember:
    place = sharing.join(session, SECOND, 60)
    assert place is not None
    assert place.address == "10.0.0.1:4000"
    return place


def reason(breakup: Breakup | None) -> tuple[str, bool] | None:
    return None if breakup is None or breakup.failure is None else (breakup.failure["reason"], breakup.counts)


def test_they_meet_and_go_on_until_one_is_lost(session: Session, postgresql_url: str, tmp_path: Path) -> None:
    made = crew(session, postgresql_url, tmp_path)
    assert made.breakup(session) is None
    assert not made.computes(session)
    place = come(session)
    assert made.breakup(session) is None
    made.begin(session)
    assert made.breakup(session) is None
    assert made.computes(session)
    sharing.renew(session, place.id, EXPIRED)
    found = made.breakup(session)
    assert reason(found) == ("worker_lost", True)
    assert found is not None
    assert found.failure is not None
    assert SECOND in found.failure["detail"]
    assert not made.computes(session)


def test_one_that_has_done_its_part_is_not_missed(session: Session, postgresql_url: str, tmp_path: Path) -> None:
    made = crew(session, postgresql_url, tmp_path)
    place = come(session)
    made.begin(session)
    sharing.leave(session, place.id, done=True)
    assert made.breakup(session) is None


def test_who_leaves_before_all_have_met_costs_no_attempt(session: Session, postgresql_url: str, tmp_path: Path) -> None:
    made = crew(session, postgresql_url, tmp_path)
    sharing.leave(session, come(session).id, done=False)
    assert reason(made.breakup(session)) == ("machines_missing", False)


def test_machines_that_do_not_come_in_time_cost_no_attempt(
    session: Session, postgresql_url: str, tmp_path: Path
) -> None:
    made = crew(session, postgresql_url, tmp_path, meeting_seconds=1e-9)
    found = made.breakup(session)
    assert reason(found) == ("machines_missing", False)
    assert found is not None
    assert found.failure is not None
    assert found.failure["detail"].startswith("1 of 2 machines")


def test_machines_that_have_come_and_do_not_reach_each_other_are_a_fault(
    session: Session, postgresql_url: str, tmp_path: Path
) -> None:
    made = crew(session, postgresql_url, tmp_path, meeting_seconds=1e-9)
    come(session)
    assert made.breakup(session) is None  # it has only just come
    found = made.breakup(session)
    assert reason(found) == ("machines_missing", True)
    assert found is not None
    assert found.failure is not None
    assert "10.0.0.1:4000" in found.failure["detail"]
    assert "GRAFT_WORKER_ADDRESS" in found.failure["hint"]


def test_one_that_comes_later_gives_way(session: Session, postgresql_url: str, tmp_path: Path) -> None:
    made = crew(session, postgresql_url, tmp_path)
    training(session, resources={"machines": 2}, priority=1)
    other = claiming.claim(session, ["train"], SECOND, 60)
    assert other is not None
    sharing.gather(session, Claim(other.id, other.epoch), SECOND, "10.0.0.2:4000", 2)
    assert made.breakup(session) == Breakup(None, counts=False)
