"""This module opens the database: one engine a process, short transactions, SQLite and PostgreSQL alike."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum as PythonEnum
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Connection, Engine, Enum, MetaData, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import DeclarativeBase, ORMExecuteState, Session

from app.core.driver_errors import driver_errors_explained
from app.core.settings import Settings

# SQLite releases without the WAL-reset bug (https://sqlite.org/wal.html): a crash there can corrupt the file.
_WAL_SAFE = ((3, 51, 3), (3, 50, 7), (3, 44, 6))

# How long a process waits for another one's transaction, and for another one's migration (SQLite), in ms.
_WAITS_MS = 10_000
_MIGRATES_WITHIN_MS = 600_000

Json = JSON(none_as_null=True)  # a Python None is an SQL NULL, not the JSON text null


class Base(DeclarativeBase):
    # Named constraints: SQLite can only change a table by copying it, and Alembic then needs the names.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def enum_column(states: type[PythonEnum]) -> Enum:
    """Return a column type that keeps an enum's value as text, checked by the database."""
    return Enum(
        states,
        name=states.__name__.lower(),
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


class _Reader(Session):
    """This session refuses to write: where there is no transaction, nothing would take that back."""

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        if self.new or self.dirty or self.deleted:
            raise RuntimeError("a session for reading has changes to write")
        super().flush(objects)


@event.listens_for(_Reader, "do_orm_execute")
def _refuse_changes(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        raise RuntimeError("a session for reading was given a statement that writes")


@dataclass(frozen=True, slots=True)
class Pool:
    """A process has these connections to PostgreSQL: so many are kept open, and so many more while they are asked for.

    With `by_transaction` a pooler such as PgBouncer gives each transaction another server connection: nothing may be
    kept on one between transactions, so no statement is prepared and no option is sent on connecting.
    """

    size: int = 20
    overflow: int = 10
    by_transaction: bool = False
    # A process that is paused in the midst of a transaction holds its locks no longer than this (PostgreSQL).
    idle_seconds: float = 5.0


def configured_database(settings: Settings) -> "Database":
    """Return the database that the settings describe; nothing is connected yet."""
    pool = Pool(settings.database_pool_size, settings.database_pool_overflow, settings.database_pooler)
    return Database(settings.sqlalchemy_url, pool)


class Database:
    """This class gives sessions to readers and writers. One request or one worker write is one transaction."""

    def __init__(self, url: str, pool: Pool | None = None) -> None:
        self.url = make_url(url)
        self.engine = _make_engine(url, pool or Pool())
        self._writer = self.engine.execution_options(graft_begin="BEGIN IMMEDIATE")
        # PostgreSQL has a view for each statement, in a transaction (READ COMMITTED) as without one: none is begun.
        autocommits = self.url.get_backend_name() == "postgresql"
        self._reader = self.engine.execution_options(isolation_level="AUTOCOMMIT") if autocommits else self.engine
        self.writes = 0  # transactions that this process has ended, with whatever outcome
        self.commits = 0  # those of them that were committed for sure

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session that refuses to write; on SQLite it does not wait for writers."""
        with driver_errors_explained(), _Reader(self._reader, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session whose transaction is committed on leaving, or rolled back if the body raises."""
        try:
            with driver_errors_explained(), Session(self._writer, expire_on_commit=False) as session, session.begin():
                yield session
            self.commits += 1
        finally:
            self.writes += 1

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Yield a connection for changes of the schema, in one transaction. SQLite alters a table by copying it and
        dropping the old one, which no foreign key may hinder; they are checked before the commit instead."""
        with driver_errors_explained(), self._writer.connect() as connection:
            sqlite = connection.dialect.name == "sqlite"
            if sqlite:  # without effect inside a transaction
                _pragma(connection, "foreign_keys=OFF")
                _pragma(connection, f"busy_timeout={_MIGRATES_WITHIN_MS}")
            try:
                with connection.begin():
                    yield connection
                    if sqlite and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
                        raise RuntimeError(f"the migration left a row of {broken[0]} that points to nothing")
            finally:
                if sqlite:
                    _pragma(connection, "foreign_keys=ON")
                    _pragma(connection, f"busy_timeout={_WAITS_MS}")

    def close(self) -> None:
        self.engine.dispose()


def _make_engine(url: str, pool: Pool) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        # A dead connection is noticed before it is used; waiting for a server is bounded.
        engine = create_engine(
            parsed,
            pool_pre_ping=True,
            pool_use_lifo=True,  # the connection used last has its statements prepared
            pool_size=pool.size,
            max_overflow=pool.overflow,
            connect_args={"connect_timeout": 5, **_session_arguments(pool)},
        )
    elif parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        # As many as threads ask at once: what is over the pool's size is opened and closed for each of them.
        engine = create_engine(parsed, pool_size=40, connect_args={"timeout": 10, "check_same_thread": False})
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        shown = parsed.render_as_string(hide_password=True)
        raise ValueError(f"GRAFT_DATABASE_URL {shown!r}: use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME")
    return engine


def _session_arguments(pool: Pool) -> dict[str, Any]:
    """Return what psycopg is told of each connection."""
    if pool.by_transaction:
        return {"prepare_threshold": None}
    return {"options": f"-c timezone=utc -c idle_in_transaction_session_timeout={pool.idle_seconds * 1000:.0f}"}


def _pragma(connection: Connection, pragma: str) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute(f"PRAGMA {pragma}")


def _configure_sqlite(connection: DBAPIConnection, _record: Any) -> None:
    # Python's own transaction handling would begin too late and too weakly; `_begin_sqlite` does it.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "foreign_keys=ON",
        f"busy_timeout={_WAITS_MS}",
        "synchronous=FULL",
        f"journal_mode={_journal_mode()}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _journal_mode() -> str:
    version = sqlite3.sqlite_version_info
    safe = version >= _WAL_SAFE[0] or any(version[:2] == fixed[:2] and version >= fixed for fixed in _WAL_SAFE)
    return "WAL" if safe else "DELETE"


def _begin_sqlite(connection: Connection) -> None:
    # Writers take the write lock at once: a reader that turns writer half-way can only fail with SQLITE_BUSY.
    connection.exec_driver_sql(connection.get_execution_options().get("graft_begin", "BEGIN"))
