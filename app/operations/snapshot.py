"""One moment of a database, to read from for as long as it takes without holding a writer up."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection

from app.core.database import Database


@contextmanager
def snapshot(database: Database, folder: Path) -> Iterator[Connection]:
    """Give a connection that sees the rows of this moment, whatever is written meanwhile.

    PostgreSQL keeps the moment itself. SQLite would make writers wait for a reader, so its file is copied into
    `folder` first, which takes as long as reading it.
    """
    if database.url.get_backend_name() == "sqlite":
        copy = folder / "snapshot.db"
        assert database.url.database is not None
        with closing(sqlite3.connect(database.url.database, timeout=60)) as source:
            source.execute("VACUUM INTO ?", (str(copy),))
        copied = Database(f"sqlite:///{copy}")
        try:
            with copied.engine.connect() as connection:
                yield connection
        finally:
            copied.close()
            copy.unlink()
        return
    repeatable = database.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with repeatable.connect() as connection, connection.begin():
        # It waits for the disk of the backup now and then, and keeps nobody from writing.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
        yield connection
