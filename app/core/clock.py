"""This module reads the database's clock: leases compare times of one machine, whichever process wrote them."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, Double, String, TypeDecorator, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class UtcDateTime(TypeDecorator[datetime]):
    """This column type holds an aware UTC datetime. PostgreSQL keeps the zone; SQLite, which has none, keeps text that
    sorts in time order."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(String(32) if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive datetime {value!r}: give it a time zone")
        value = value.astimezone(UTC)
        return value.strftime("%Y-%m-%d %H:%M:%S.%f") if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.strptime(value, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        return value.astimezone(UTC)  # type: ignore[no-any-return]


class DatabaseTime(FunctionElement[datetime]):
    """This is SQL for the database's current time plus `seconds` (may be negative), read when the statement runs."""

    type = UtcDateTime()
    inherit_cache = True  # the seconds are a bound parameter: statements with it are compiled once

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(literal(float(seconds), Double()))


@compiles(DatabaseTime, "postgresql")
def _postgresql(element: DatabaseTime, compiler: SQLCompiler, **kw: Any) -> str:
    # clock_timestamp, not now(): now() stands still at the transaction's start, which may be a lock wait ago.
    return f"(clock_timestamp() + {compiler.process(element.clauses, **kw)} * interval '1 second')"


@compiles(DatabaseTime, "sqlite")
def _sqlite(element: DatabaseTime, compiler: SQLCompiler, **kw: Any) -> str:
    # SQLite counts milliseconds; the zeros make the text sort with what UtcDateTime writes.
    seconds = compiler.process(element.clauses, **kw)
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"


def utc_now() -> datetime:
    """Return this process's time; for things that no other process compares."""
    return datetime.now(UTC)
