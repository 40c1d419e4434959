"""Sessions of readers and writers, on both databases."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import QueuePool

from app.auth.orm import Workspace
from app.core import database as module
from app.core.database import Database, Pool
from app.core.errors import Conflict, Invalid, Unavailable
from tests.support.servers import free_port


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def postgresql(postgresql_url: str) -> Iterator[Database]:
    database = Database(postgresql_url)
    yield database
    database.close()


def names(database: Database) -> list[str]:
    with database.reading() as session:
        return list(session.scalars(select(Workspace.name).order_by(Workspace.name)))


def test_leaving_commits(database: Database) -> None:
    with database.writing() as session:
        session.add(Workspace(name="kept"))
    assert names(database) == ["kept"]


@pytest.mark.parametrize("error", [ValueError("ours"), Conflict("a caller's"), KeyboardInterrupt()])
def test_an_error_rolls_back_and_stays_what_it_is(database: Database, error: BaseException) -> None:
    def write() -> None:
        with database.writing() as session:
            session.add(Workspace(name="lost"))
            session.flush()
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert names(database) == []


def test_rows_can_be_used_after_the_commit(database: Database) -> None:
    with database.writing() as session:
        workspace = Workspace(name="kept")
        session.add(workspace)
    assert workspace.name == "kept"


def test_a_reader_sees_what_is_committed_and_no_more(database: Database) -> None:
    with database.writing() as session:
        session.add(Workspace(name="first"))
    with database.writing() as session:
        session.add(Workspace(name="second"))
        session.flush()
        assert names(database) == ["first"]
    assert names(database) == ["first", "second"]


def test_a_reader_cannot_write(database: Database) -> None:
    with database.reading() as session:
        session.add(Workspace(name="lost"))
        with pytest.raises(RuntimeError, match="for reading"):
            session.flush()
    with pytest.raises(RuntimeError, match="for reading"), database.reading() as session:
        session.execute(insert(Workspace).values(name="lost"))
    assert names(database) == []
    with database.writing() as session:
        session.add(Workspace(name="kept"))
    with database.reading() as session:
        session.scalars(select(Workspace)).one().name = "changed"
        assert session.scalars(select(Workspace.name)).one() == "kept"
    for change in (update(Workspace).values(name="lost"), delete(Workspace)):
        with pytest.raises(RuntimeError, match="for reading"), database.reading() as session:
            session.execute(change)
    assert names(database) == ["kept"]


def test_writers_wait_for_each_other(database: Database) -> None:
    """Each reads and then writes what it read, which on SQLite fails unless the lock is taken at the beginning."""
    with database.writing() as session:
        session.add(Workspace(name="0"))
    together = threading.Barrier(4)

    def count_up() -> None:
        together.wait()
        for _ in range(10):
            with database.writing() as session:
                row = session.scalars(select(Workspace).with_for_update()).one()
                row.name = str(int(row.name) + 1)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(count_up) for _ in range(4)]:
            done.result()
    assert names(database) == ["40"]


def test_a_sqlite_writer_has_the_lock_from_the_beginning(sqlite: Database, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "graftwork.db", timeout=0, isolation_level=None)) as other:
        with sqlite.writing() as session:
            session.connection()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
        with sqlite.reading() as session:
            session.connection()
            other.execute("BEGIN IMMEDIATE")


def test_the_pragmas_of_sqlite(sqlite: Database) -> None:
    def pragma(name: str) -> object:
        with sqlite.reading() as session:
            return session.execute(text(f"PRAGMA {name}")).scalar()

    assert (pragma("foreign_keys"), pragma("busy_timeout"), pragma("synchronous")) == (1, 10_000, 2)
    assert pragma("journal_mode") == module._journal_mode().lower()


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "DELETE"),
        ((3, 44, 5), "DELETE"),
        ((3, 44, 6), "WAL"),
        ((3, 45, 0), "DELETE"),
        ((3, 50, 6), "DELETE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 2), "DELETE"),
        ((3, 51, 3), "WAL"),
        ((3, 52, 0), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_wal_is_used_on_a_sqlite_that_resets_it_safely(
    version: tuple[int, int, int], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert module._journal_mode() == mode


def test_both_databases_check_references(database: Database) -> None:
    nobody = "'" + "0" * 32 + "'"
    insert = (
        "INSERT INTO api_keys (id, workspace_id, name, prefix, secret_sha256, scopes, created_at) "
        f"VALUES ({nobody}, {nobody}, 'k', 'gw_', 'x', '[]', '2026-01-01')"
    )
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(text(insert))


def test_a_folder_is_made_for_the_sqlite_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/new/folder/graft.db")
    with database.writing() as session:
        session.execute(text("CREATE TABLE t (x)"))
    database.close()
    assert (tmp_path / "new/folder/graft.db").is_file()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    database = Database(f"postgresql://nobody:hush-hush@127.0.0.1:{free_port()}/graft")
    for session_of in (database.reading, database.writing):
        with pytest.raises(Unavailable) as caught, session_of() as session:
            session.execute(text("SELECT 1"))
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "database_unavailable", 2)
        # Neither the password nor where the server is: callers read this.
        assert "hush-hush" not in caught.value.detail
        assert "127.0.0.1" not in caught.value.detail
    database.close()


def test_a_connection_that_dies_is_unavailable_and_the_next_one_is_good(
    postgresql: Database, postgres_url: Callable[[str], str]
) -> None:
    def write() -> None:
        with postgresql.writing() as session:
            session.add(Workspace(name="lost"))
            session.flush()
            own = session.execute(text("SELECT pg_backend_pid()")).scalar()
            with psycopg.connect(postgres_url("postgres"), autocommit=True) as server:
                server.execute("SELECT pg_terminate_backend(%s)", [own])
            session.execute(text("SELECT 1"))

    with pytest.raises(Unavailable, match="Nothing was changed"):
        write()
    assert names(postgresql) == []


def test_a_connection_that_died_in_the_pool_is_not_used(
    postgresql: Database, postgres_url: Callable[[str], str]
) -> None:
    assert names(postgresql) == []
    with psycopg.connect(postgres_url("postgres"), autocommit=True) as server:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        assert server.execute(query, [postgresql.url.database]).rowcount == 1
    assert names(postgresql) == []


def test_a_pool_with_no_connection_left_is_unavailable(postgresql: Database) -> None:
    small = create_engine(postgresql.url, pool_size=1, max_overflow=0, pool_timeout=0)
    postgresql._reader = small
    with postgresql.reading() as session:
        session.connection()
        with pytest.raises(Unavailable, match="in use"), postgresql.reading() as second:
            second.connection()
    assert names(postgresql) == []
    small.dispose()


def test_the_pool_is_as_large_as_it_is_told(postgresql_url: str) -> None:
    database = Database(postgresql_url, Pool(size=1, overflow=1))
    pool = database.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.size() == 1
    with database.reading() as first, database.reading() as second:
        first.execute(text("SELECT 1"))
        second.execute(text("SELECT 1"))
        assert (pool.checkedout(), pool.overflow()) == (2, 1)
    database.close()


def test_behind_a_pooler_nothing_is_kept_on_a_connection(postgresql_url: str) -> None:
    database = Database(postgresql_url, Pool(by_transaction=True))
    prepared = text("SELECT count(*) FROM pg_prepared_statements")
    with database.reading() as session:
        for _ in range(10):  # psycopg prepares what it is asked five times
            assert session.execute(prepared).scalar_one() == 0
        assert session.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == "0"
    database.close()


def test_text_that_postgresql_cannot_hold_is_the_callers_error(postgresql: Database) -> None:
    with pytest.raises(Invalid, match="NUL") as caught, postgresql.writing() as session:
        session.execute(update(Workspace).values(name="a\0b"))
    assert caught.value.code == "bad_value"


def test_another_kind_of_database_is_refused_without_showing_its_password() -> None:
    with pytest.raises(ValueError, match="use sqlite:///FILE or postgresql://") as caught:
        Database("mysql://root:hush-hush@host/db")
    assert "hush-hush" not in str(caught.value)
    assert "mysql" in str(caught.value)
