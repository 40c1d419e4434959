"""Restore a backup into an empty service, on whichever database and store its settings name."""

from collections.abc import Callable, Iterator
from pathlib import Path

import zstandard
from sqlalchemy import Connection, Integer, func, select

from app.core.database import Database
from app.core.errors import Conflict, Invalid
from app.core.migrations import migrate, schema_of
from app.operations.backup import read_document
from app.operations.rows import load, tables
from app.storage import BlobDamaged, BlobStore, FilesystemStore

Tell = Callable[[str], object]


def restore(database: Database, store: BlobStore, folder: Path, tell: Tell = lambda _: None) -> dict[str, int]:
    """Put a backup's blobs and rows into a service without any, and return how many rows each table got.

    The blobs come first and the rows in one transaction after them: whatever breaks off leaves an empty service. Jobs
    that were running are taken back by the workers, since their leases are over. Raises `Invalid` for a folder that
    holds no whole backup, and `Conflict` where the service is not empty or the backup is of another schema.
    """
    document = read_document(folder)
    migrate(database)
    with database.migrating() as connection:
        _check_empty(connection)
        needed = schema_of(connection).needed
    if document["schema"] != needed:
        raise Conflict(
            f"The backup has schema {document['schema']} and this version {needed}. Restore it with Graftwork "
            f"{document['version']}, then upgrade.",
            code="other_schema",
        )
    kept = FilesystemStore(folder / "blobs")
    blobs = [blob.sha256 for blob in kept.list()]
    for number, sha256 in enumerate(blobs):
        if number % 100 == 0:
            tell(f"restoring blobs: {number} of {len(blobs)}")
        try:
            store.put_file(kept.fetch(sha256, folder))
        except BlobDamaged as error:
            raise Invalid(f"The backup is damaged: {error.detail}") from None
    tell("restoring the rows")
    with database.migrating() as connection:
        _check_empty(connection)
        counts = {table.name: load(connection, table, _lines(folder, table.name)) for table in tables()}
        if counts != document["rows"]:
            raise Invalid(f"The backup is damaged: it should hold {document['rows']} rows, and has {counts}.")
        _set_counters(connection)
    return counts


def _check_empty(connection: Connection) -> None:
    for table in tables():
        if rows := connection.execute(select(func.count()).select_from(table)).scalar_one():
            raise Conflict(
                f"This service has data already ({rows} in {table.name}). Restore into an empty database and store.",
                code="not_empty",
            )


def _lines(folder: Path, table: str) -> Iterator[bytes]:
    try:
        path = folder / "rows" / f"{table}.jsonl.zst"
        with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as file:
            rest = b""
            while chunk := file.read(1 << 20):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from lines
    except (OSError, zstandard.ZstdError) as error:
        raise Invalid(f"The backup is damaged: {table} cannot be read ({error}).") from None


def _set_counters(connection: Connection) -> None:
    """Let PostgreSQL count on from the rows that are there, where it gives numbers itself."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables():
        for column in table.primary_key:
            if not isinstance(column.type, Integer) or column.foreign_keys:
                continue
            sequence = connection.execute(select(func.pg_get_serial_sequence(table.name, column.name))).scalar()
            if sequence is not None:
                highest = select(func.coalesce(func.max(column), 0) + 1).scalar_subquery()
                connection.execute(select(func.setval(sequence, highest, False)))
