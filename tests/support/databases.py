"""PostgreSQL databases for tests: copies of a migrated one, emptied after each test and used again."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import psycopg

# What a test may have changed beside rows. A database that differs from the template is not used again.
_SHAPE = """
SELECT md5(string_agg(line, ';' ORDER BY line)) FROM (
    SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) AS line
    FROM information_schema.columns WHERE table_schema = 'public'
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
) AS lines
"""
_numbers = count()  # of all pools of this process
_VERSION = "alembic_version"
_ALONE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Databases:
    """Gives empty, migrated databases: `url` is that of a database of a server, by its name."""

    def __init__(self, url: Callable[[str], str], template: str) -> None:
        self._url, self._template = url, template
        self._free: list[str] = []
        with self._connected(template) as connection:
            self._shape = shape_of(connection)
            self._tables = [
                name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            ]

    @contextmanager
    def one(self) -> Iterator[str]:
        """Yield the URL of a database that nobody else uses."""
        name = self._free.pop() if self._free else self._copy()
        yield self._url(name)
        if self._emptied(name):
            self._free.append(name)
        else:
            self._drop(name)

    def close(self) -> None:
        for name in self._free:
            self._drop(name)

    def _copy(self) -> str:
        name = f"graft_{os.getpid()}_{next(_numbers)}"
        with self._connected("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return name

    def _drop(self, name: str) -> None:
        with self._connected("postgres") as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _emptied(self, name: str) -> bool:
        """Remove every row; False where the database is no longer what the template is."""
        with self._connected(name) as connection:
            connection.execute(_ALONE)
            if shape_of(connection) != self._shape:
                return False
            tables = [table for table in self._tables if table != _VERSION]
            filled = " UNION ALL ".join(f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in tables)
            used = [table for (table,) in connection.execute(filled)]
            if used:
                connection.execute(f"TRUNCATE {', '.join(used)} RESTART IDENTITY CASCADE")
            connection.execute(
                "SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false) FROM pg_sequences"
                " WHERE last_value IS NOT NULL"
            )
        return True

    def _connected(self, name: str) -> psycopg.Connection:
        return psycopg.connect(self._url(name), autocommit=True)


def shape_of(connection: psycopg.Connection) -> tuple[object, ...]:
    """Return what tells a migrated database from one that a test has changed: its tables, and the version it names."""
    found = connection.execute(_SHAPE).fetchone()
    there = connection.execute(f"SELECT to_regclass('{_VERSION}')").fetchone()
    assert found is not None
    if there is None or there[0] is None:
        return found
    return (*found, *connection.execute(f"SELECT version_num FROM {_VERSION}").fetchall())
