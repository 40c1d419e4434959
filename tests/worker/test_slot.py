"""A slot between jobs."""

from uuid import UUID

import pytest

from app.jobs.states import JobKind, JobState
from app.storage.configured import configured_store
from tests.worker.conftest import Site
from worker.room import Room
from worker.slot import Slot


@pytest.fixture
def slot(site: Site) -> Slot:
    settings, database = site.stage.settings, site.stage.database
    store = configured_store(settings)
    return Slot(settings, database, store, Room(settings, store), JobKind.train, "host:1", None, ahead=False)


def test_looking_for_work_where_there_is_none_writes_nothing(site: Site, slot: Slot) -> None:
    before = site.stage.database.writes
    slot.ring(told=False)
    assert site.stage.database.writes == before  # and so takes no lock that others wait for


@pytest.mark.parametrize("told", [True, False])
def test_it_runs_all_that_waits_whether_it_was_told_or_looked_by_itself(site: Site, slot: Slot, told: bool) -> None:
    jobs: list[UUID] = [site.train(epochs=1), site.train(epochs=1)]
    slot.ring(told)
    assert [site.job(job).state for job in jobs] == [JobState.succeeded] * 2
