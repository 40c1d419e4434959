"""Times: the database's own clock, and what comes back is what went in."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, func, insert, select
from sqlalchemy.exc import StatementError

from app.core.clock import DatabaseTime, UtcDateTime, utc_now
from app.core.database import Database

MOMENTS = Table("moments", MetaData(), Column("at", UtcDateTime))
WHEN = datetime(2026, 3, 29, 1, 30, 0, 123456, UTC)


def keep(database: Database, *values: Any) -> None:
    with database.writing() as session:
        MOMENTS.create(session.connection(), checkfirst=True)
        for value in values:
            session.execute(insert(MOMENTS).values(at=value))


def kept(database: Database) -> list[datetime]:
    with database.reading() as session:
        return list(session.scalars(select(MOMENTS.c.at).order_by(MOMENTS.c.at)))


@pytest.mark.parametrize(
    "when", [WHEN, WHEN.replace(microsecond=0), WHEN.astimezone(timezone(timedelta(hours=-9, minutes=-30)))]
)
def test_a_time_comes_back_as_it_was_in_utc(database: Database, when: datetime) -> None:
    keep(database, when)
    (found,) = kept(database)
    assert found == when
    assert found.utcoffset() == timedelta(0)


def test_no_time_stays_none(database: Database) -> None:
    keep(database, None)
    assert kept(database) == [None]


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="give it a time zone"):
        keep(database, datetime(2026, 1, 1))


def test_the_database_tells_the_time(database: Database) -> None:
    before = utc_now() - timedelta(seconds=1)  # the clocks of a server and its client may differ in their last digits
    keep(database, DatabaseTime())
    (found,) = kept(database)
    assert found.tzinfo is not None
    assert before <= found <= utc_now() + timedelta(seconds=1)


@pytest.mark.parametrize("seconds", [0.0, 12.0, -12.0, 0.25, -86_400.0, 3e7])
def test_seconds_are_added_or_taken_away(database: Database, seconds: float) -> None:
    before = utc_now() - timedelta(seconds=1)
    keep(database, DatabaseTime(seconds))
    (found,) = kept(database)
    assert before <= found - timedelta(seconds=seconds) <= utc_now() + timedelta(seconds=1)


def test_two_moments_of_one_statement_shape_are_not_confused(database: Database) -> None:
    """Compiled statements are cached; the seconds must not be."""
    keep(database, DatabaseTime(1000), DatabaseTime(-1000), DatabaseTime(5000))
    first, second, third = kept(database)
    assert timedelta(seconds=1990) < second - first < timedelta(seconds=2010)
    assert timedelta(seconds=3990) < third - second < timedelta(seconds=4010)


def test_a_statement_with_the_time_is_compiled_once(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """Workers ask for work all day; compiling took most of an idle one's time."""
    keep(database)
    with caplog.at_level("INFO", "sqlalchemy.engine"), database.reading() as session:
        for seconds in (1, 2):
            session.scalars(select(MOMENTS.c.at).where(MOMENTS.c.at < DatabaseTime(seconds))).all()
    known = [line for line in caplog.messages if line.startswith(("[generated", "[cached", "[no key"))]
    assert [line.split()[0] for line in known] == ["[generated", "[cached"]


def test_the_databases_time_sorts_with_times_of_ours(database: Database) -> None:
    now = utc_now()
    past, future = now - timedelta(seconds=60), now + timedelta(seconds=60)
    keep(database, future, DatabaseTime(), past, DatabaseTime(-3600), now + timedelta(days=300))
    found = kept(database)
    assert found == sorted(found)
    assert [found[1], found[3]] == [past, future]
    with database.reading() as session:
        count = select(func.count()).select_from(MOMENTS)
        assert session.scalar(count.where(MOMENTS.c.at < DatabaseTime())) == 3
        assert session.scalar(count.where(MOMENTS.c.at < DatabaseTime(30))) == 3
        assert session.scalar(count.where(MOMENTS.c.at < DatabaseTime(-1800))) == 1


def test_it_moves_on_within_a_transaction(database: Database) -> None:
    """A lease that was waited for is as long as one that was not."""
    with database.writing() as session:
        first = session.scalar(select(DatabaseTime()))
        while (second := session.scalar(select(DatabaseTime()))) == first:
            pass
    assert first is not None
    assert second is not None
    assert second > first
