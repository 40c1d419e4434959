"""The databases that tests are given: used again, and nothing is left in them of the test before."""

from collections.abc import Callable

import psycopg

from app.core.database import Database
from tests.support.databases import Databases
from tests.support.factories import training


def rows(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        tables = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        counted = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in tables}
    return {name: found[0] for name, found in counted.items() if found and found[0]}


def test_one_is_used_again_and_empty(migrated_postgres: str, postgres_url: Callable[[str], str]) -> None:
    databases = Databases(postgres_url, migrated_postgres)
    try:
        with databases.one() as first:
            database = Database(first)
            with database.writing() as session:
                training(session)
            assert len(rows(first)) > 3
        database.close()
        with databases.one() as second:
            assert second == first
            assert rows(second) == {"alembic_version": 1}
    finally:
        databases.close()


def test_one_that_a_test_has_changed_is_not_used_again(
    migrated_postgres: str, postgres_url: Callable[[str], str]
) -> None:
    databases = Databases(postgres_url, migrated_postgres)
    try:
        for change in (
            "DROP TABLE alembic_version",
            "UPDATE alembic_version SET version_num = '0001'",
            "ALTER TABLE jobs ADD COLUMN extra text",
        ):
            with databases.one() as first, psycopg.connect(first) as connection:
                connection.execute(change)
            with databases.one() as second:
                assert second != first
    finally:
        databases.close()
