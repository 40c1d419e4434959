"""What predict calls keep for those that come after them, and for how long."""

import time

import pytest

from app.api.predict_path.kept import ReadQueries, Recent, Refusals
from app.core.database import Database
from app.core.errors import Unavailable
from app.predictions.schemas import PredictOptions


def test_a_value_is_kept_until_something_is_written(database: Database) -> None:
    recent: Recent[str] = Recent(database)
    assert recent.get("key") is None
    assert recent.put("key", "value", recent.now) == "value"
    assert recent.get("key") == "value"
    with database.reading():
        pass
    assert recent.get("key") == "value"
    with database.writing():
        assert recent.get("key") == "value"  # nothing is written yet
    assert recent.get("key") is None


def test_what_was_read_before_a_write_is_not_kept_after_it(database: Database) -> None:
    recent: Recent[str] = Recent(database)
    before = recent.now
    with pytest.raises(ZeroDivisionError), database.writing():
        _ = 1 / 0
    recent.put("key", "old", before)
    assert recent.get("key") is None


def test_a_value_is_forgotten_after_a_second(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    recent: Recent[str] = Recent(database)
    recent.put("key", "value", recent.now)
    later = time.monotonic() + 1.1
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert recent.get("key") is None


def test_before_its_time_is_over_one_caller_reads_it_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    recent: Recent[str] = Recent(database)
    began = time.monotonic()
    recent.put("key", "value", recent.now)
    monkeypatch.setattr(time, "monotonic", lambda: began + 0.8)
    assert [recent.get("key") for _ in range(3)] == [None, "value", "value"]
    recent.put("key", "newer", recent.now)
    assert [recent.get("key") for _ in range(3)] == ["newer"] * 3
    monkeypatch.setattr(time, "monotonic", lambda: began + 1.6)
    assert [recent.get("key") for _ in range(3)] == [None, "newer", "newer"]
    monkeypatch.setattr(time, "monotonic", lambda: began + 1.9)  # who was to read it met an error, perhaps
    assert recent.get("key") is None


def test_the_oldest_of_many_make_room(database: Database) -> None:
    recent: Recent[int] = Recent(database)
    for number in range(1001):
        recent.put(number, number, recent.now)
    assert recent.get(0) is None
    assert recent.get(1000) == 1000


def test_nothing_is_kept_where_the_shortcut_is_switched_off(database: Database) -> None:
    recent: Recent[str] = Recent(database, keeps=False)
    assert recent.put("key", "value", recent.now) == "value"
    assert recent.get("key") is None


CALL, OTHER = ("/v1/models/a/predict", b"", "Bearer one"), ("/v1/models/a/predict", b"", "Bearer other")


def test_a_refused_call_meets_the_same_error_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    refusals = Refusals()
    error = Unavailable("Too many wait.", code="overloaded", retry_after=2)
    assert refusals.get(CALL) is None
    refusals.put(CALL, error, 0.05)
    assert refusals.get(CALL) is error
    assert refusals.get(OTHER) is None
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.04)
    assert refusals.get(CALL) is error
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.06)
    assert refusals.get(CALL) is None
    refusals.put(CALL, error, 60.0)
    monkeypatch.setattr(time, "monotonic", lambda: now + 0.2)
    assert refusals.get(CALL) is None  # no refusal holds for long


def test_a_call_that_cannot_be_told_from_others_is_never_refused_unread() -> None:
    refusals = Refusals()
    refusals.put(None, Unavailable("Too many wait."), 60.0)
    assert refusals.get(None) is None


def test_what_queries_ask_is_not_kept_without_end() -> None:
    queries = ReadQueries(most=3)
    for number in range(8):
        queries.put(b"top_k=%d" % number, PredictOptions(top_k=number + 1))
    found = [number for number in range(8) if queries.get(b"top_k=%d" % number) is not None]
    assert found == [6, 7]
