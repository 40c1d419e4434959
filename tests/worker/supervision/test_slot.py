"""A slot between jobs."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from app.core.database import Database
from app.core.settings import Settings
from app.jobs import claiming, sharing
from app.jobs.queue import Claim
from app.jobs.states import JobState
from app.storage.configured import configured_store
from app.trainings.type import TRAIN
from tests.support.factories import training, worker
from tests.support.services import Service
from worker.supervision.free_space import StorageCheck
from worker.supervision.slot import Slot


def slot_of(settings: Settings, database: Database, kind: type[Slot] = Slot) -> Slot:
    store = configured_store(settings)
    return kind(settings, database, store, StorageCheck(settings, store), [TRAIN], "host:1", None, ahead=False)


@pytest.fixture
def slot(site: Service) -> Slot:
    return slot_of(site.settings, site.database)


class Claiming(Slot):
    """A slot that claims jobs and does none of them."""

    def run_job(self, *_: Any) -> None:
        pass


def test_looking_for_work_where_there_is_none_writes_nothing(site: Service, slot: Slot) -> None:
    before = site.stage.database.writes
    slot.ring(told=False)
    assert site.stage.database.writes == before  # and so takes no lock that others wait for


@pytest.mark.parametrize("told", [True, False])
def test_who_is_told_claims_at_once_and_who_is_not_looks_first(
    site: Service, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    done = []

    def noted(name: str, do: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (done.append(name), do(*given))[1]

    monkeypatch.setattr(claiming, "waiting", noted("looked", claiming.waiting))
    monkeypatch.setattr(claiming, "claim", noted("claimed", claiming.claim))
    site.train()
    slot_of(site.settings, site.database, Claiming).ring(told)
    assert done == (["claimed", "looked"] if told else ["looked", "claimed", "looked"])


def test_who_is_told_takes_a_place_that_waits_for_it_and_holds_no_transaction_meanwhile(
    postgresql_url: str, settings: Settings
) -> None:
    database = Database(postgresql_url)
    with database.writing() as session:
        for name in ("leader:1", "host:1"):
            worker(session, name)
        shared = training(session, resources={"machines": 2})
        assert claiming.claim(session, ["train"], "leader:1", 60) is shared
        sharing.gather(session, Claim(shared.id, shared.epoch), "leader:1", "10.0.0.1:4000", 2)
        training(session)
    ran = []

    class OnePlace(Claiming):
        """A slot that takes one place, and ends."""

        def run_place(self, place: Any, job: Any, _: Any) -> None:
            ran.append((job.id, place.number, database.engine.pool.checkedout()))
            self._stopping.set()

    slot_of(settings, database, OnePlace).ring()
    assert ran == [(shared.id, 1, 0)]
    database.close()


@pytest.mark.parametrize("told", [True, False])
def test_it_runs_all_that_waits_whether_it_was_told_or_looked_by_itself(site: Service, slot: Slot, told: bool) -> None:
    jobs: list[UUID] = [site.train(epochs=1), site.train(epochs=1)]
    slot.ring(told)
    assert [site.job(job).state for job in jobs] == [JobState.succeeded] * 2
