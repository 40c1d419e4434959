"""Rows as JSON lines that any of our databases can read again: SQLite's as well as PostgreSQL's."""

import base64
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Connection, Table, insert, select

from app.core.clock import UtcDateTime
from app.core.database import Base

BATCH = 1000  # rows a statement


def tables() -> list[Table]:
    """Return every table of the service, each behind those that its foreign keys point to."""
    return list(Base.metadata.sorted_tables)


def dump(connection: Connection, table: Table) -> Iterator[bytes]:
    """Yield each row as a line of JSON, in the order of the primary key, so that parents come first."""
    rows = connection.execution_options(yield_per=BATCH).execute(select(table).order_by(*table.primary_key))
    for row in rows.mappings():
        values = {column.name: _to_json(row[column]) for column in table.columns}
        yield json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def load(connection: Connection, table: Table, lines: Iterator[bytes]) -> int:
    """Insert rows that `dump` wrote, and return how many."""
    readers = {column.name: _reader(column) for column in table.columns}
    count = 0
    batch: list[dict[str, Any]] = []
    for line in lines:
        values = json.loads(line)
        batch.append({name: None if values[name] is None else read(values[name]) for name, read in readers.items()})
        if len(batch) == BATCH:
            count += _insert(connection, table, batch)
            batch = []
    return count + _insert(connection, table, batch)


def _insert(connection: Connection, table: Table, batch: list[dict[str, Any]]) -> int:
    if batch:
        connection.execute(insert(table), batch)
    return len(batch)


def _to_json(value: Any) -> Any:
    match value:
        case UUID():
            return str(value)
        case datetime():
            return value.isoformat()
        case Enum():
            return value.value
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value


def _reader(column: Column[Any]) -> Callable[[Any], Any]:
    """Return what makes a value of the column's type from its JSON."""
    kind = column.type.python_type
    if kind is datetime or isinstance(column.type, UtcDateTime):
        return datetime.fromisoformat
    if kind is bytes:
        return base64.b64decode
    if kind is UUID or issubclass(kind, Enum):
        return kind
    return lambda value: value
