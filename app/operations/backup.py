"""Back up a running service into a folder: the rows of one moment, and every blob that they refer to.

backup.json             what it is: format, schema, how many rows and blobs; written last
rows/<table>.jsonl.zst  one line of JSON a row
blobs/ab/<sha256>       the blobs; a further backup into the folder copies only those that are new
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard
from sqlalchemy.orm import Session

from app import __version__
from app.core.database import Database
from app.core.errors import Conflict, Invalid
from app.core.migrations import schema_of
from app.operations.references import referenced_blobs
from app.operations.rows import dump, tables
from app.operations.snapshot import snapshot
from app.storage import BlobDamaged, BlobMissing, BlobStore, FilesystemStore
from app.storage.disk import disk_errors_explained, sync_folder

FORMAT = 1
DOCUMENT = "backup.json"
_MOMENTS = 3  # of the database, where blobs of one were deleted before they could be copied

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Backup:
    """Says what a backup holds. `blobs` and `bytes` count all of its blobs, `copied` those that this run added."""

    format: int
    schema: str
    version: str
    made_at: str
    rows: dict[str, int]
    blobs: int
    bytes: int
    copied: int


def back_up(database: Database, store: BlobStore, folder: Path, tell: Tell = lambda _: None) -> Backup:
    """Write a backup into `folder`, which is new or holds an earlier one; jobs may run meanwhile.

    An earlier backup there stays whole until this one is. Raises `Conflict` where rows refer to a blob that the store
    does not have or has damaged: `graft check` names them all.
    """
    _check_folder(folder)
    with disk_errors_explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        kept = FilesystemStore(folder / "blobs")
        copied: set[str] = set()
        for moment in range(_MOMENTS):
            fresh = folder / "rows.new"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir()
            tell("reading the rows")
            schema, rows, needed = _write_rows(database, fresh)
            missing = _copy(store, kept, needed, copied, fresh, tell)
            if not missing:
                break
            tell(f"{len(missing)} blobs are gone since; the rows are read again")
            if moment + 1 == _MOMENTS:
                shown = ", ".join(sorted(missing)[:3])
                raise Conflict(
                    f"Rows refer to {len(missing)} blobs that the store does not have whole: {shown}. "
                    "`graft check` names all of them; nothing was changed.",
                    code="blobs_missing",
                )
        sizes = {blob.sha256: blob.size for blob in kept.list() if blob.sha256 in needed}
        made = Backup(
            FORMAT,
            schema,
            __version__,
            datetime.now(UTC).isoformat(timespec="seconds"),
            rows,
            len(sizes),
            sum(sizes.values()),
            len(copied),
        )
        _publish(folder, fresh, made)
        for blob in list(kept.list()):
            if blob.sha256 not in needed:
                kept.delete(blob.sha256)
    return made


def read_document(folder: Path) -> dict[str, Any]:
    """Return what a backup says of itself; raises `Invalid` where there is none that this version can read."""
    try:
        document: dict[str, Any] = json.loads((folder / DOCUMENT).read_text())
    except (OSError, ValueError):
        raise Invalid(f"{folder} holds no backup: there is no whole {DOCUMENT}. Name the folder of one.") from None
    if document.get("format") != FORMAT:
        raise Invalid(f"{folder} is a backup of format {document.get('format')}; this version reads {FORMAT}.")
    return document


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DOCUMENT).is_file():
        ours = {"rows", "rows.new", "blobs"}
        if strange := [path.name for path in folder.iterdir() if path.name not in ours]:
            raise Invalid(f"{folder} holds other things ({strange[0]}). Name a new folder, or that of a backup.")
    elif folder.exists() and not folder.is_dir():
        raise Invalid(f"{folder} is a file. Name a folder.")


def _write_rows(database: Database, folder: Path) -> tuple[str, dict[str, int], set[str]]:
    """Write every table of one moment; return its schema, how many rows each has, and the blobs they refer to."""
    counts: dict[str, int] = {}
    with snapshot(database, folder) as connection:
        schema = schema_of(connection)
        if not schema.fits:
            raise Conflict(schema.says(), code="schema_does_not_fit")
        for table in tables():
            counts[table.name] = 0
            path = folder / f"{table.name}.jsonl.zst"
            with path.open("wb") as raw, zstandard.ZstdCompressor(level=6).stream_writer(raw) as file:
                for line in dump(connection, table):
                    file.write(line)
                    counts[table.name] += 1
        needed = referenced_blobs(Session(connection))
    return schema.needed, counts, needed


def _copy(
    store: BlobStore, kept: FilesystemStore, needed: set[str], copied: set[str], scratch: Path, tell: Tell
) -> set[str]:
    """Copy what the backup does not have, each checked against its hash; return those that cannot be had."""
    new = sorted(needed - {blob.sha256 for blob in kept.list()})
    missing: set[str] = set()
    for number, sha256 in enumerate(new):
        if number % 100 == 0:
            tell(f"copying blobs: {number} of {len(new)}")
        try:
            path = store.fetch(sha256, scratch)
        except (BlobMissing, BlobDamaged):
            missing.add(sha256)
            continue
        kept.put_file(path, move=path.parent == scratch)
        copied.add(sha256)
    return missing


def _publish(folder: Path, fresh: Path, made: Backup) -> None:
    """Put the new rows in the place of those before: first aside, so that at each moment one of them is whole."""
    rows, before = folder / "rows", folder / "rows.old"
    shutil.rmtree(before, ignore_errors=True)
    sync_folder(fresh)
    if rows.is_dir():
        (folder / DOCUMENT).unlink(missing_ok=True)
        rows.rename(before)
    fresh.rename(rows)
    staged = folder / f"{DOCUMENT}.new"
    staged.write_text(json.dumps(asdict(made), indent=2) + "\n")
    staged.rename(folder / DOCUMENT)
    sync_folder(folder)
    shutil.rmtree(before, ignore_errors=True)
