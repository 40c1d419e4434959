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


def test_the_oldest_of_many_make_room(database: Database) -> None:
    recent: Recent[int] = Recent(database)
    for number in range(1001):
        recent.put(number, number, recent.now)
    assert recent.get(0) is None
    assert recent.get(1000) == 1000
