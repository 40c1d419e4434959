"""What was read a moment ago is not read again, unless this process has written since."""

import time

import pytest

from app.core.database import Database
from app.core.recent import Recent


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
