"""`graft backup`, `restore` and `check`: for an operator, straight on the database and the blob store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import CommandError
from app.cli.options import Json, print_json, settings

if TYPE_CHECKING:
    from app.core.database import Database
    from app.storage import BlobStore

Home = Annotated[Path | None, typer.Option(help="Where data is kept; GRAFT_HOME, else ~/.graftwork.")]
Folder = Annotated[Path, typer.Argument(help="The folder of the backup.")]


def _opened(home: Path | None) -> "tuple[Database, BlobStore]":
    from app.core.database import configured_database
    from app.core.home import make_private
    from app.storage.configured import configured_store
    from app.work import register_further

    given = settings(home=home)
    register_further(given)  # which blobs a job needs, its kind says
    make_private(given)
    return configured_database(given), configured_store(given)


def _tell(what: str) -> None:
    typer.echo(what, err=True)


def backup(folder: Folder, home: Home = None, as_json: Json = False) -> None:
    """Back up the rows and every blob they refer to. The service may run meanwhile."""
    from dataclasses import asdict

    from app.operations.backup import back_up

    database, store = _opened(home)
    made = back_up(database, store, folder, _tell)
    database.close()
    if as_json:
        print_json(asdict(made))
    else:
        rows = sum(made.rows.values())
        print(f"{folder}: {rows} rows, {made.blobs} blobs ({made.bytes / 2**20:,.1f} MiB), {made.copied} of them new.")


def restore(folder: Folder, home: Home = None) -> None:
    """Restore a backup into a service that is empty. Stop the API and the workers first."""
    from app.operations.restore import restore

    database, store = _opened(home)
    counts = restore(database, store, folder, _tell)
    database.close()
    print(f"Restored {sum(counts.values())} rows. Start the service; jobs that were running go on by themselves.")


def check(
    home: Home = None,
    hashes: Annotated[bool, typer.Option("--hashes", help="Read every blob and compare its hash.")] = False,
    as_json: Json = False,
) -> None:
    """Check that every row has its blobs, and count the blobs that no row refers to."""
    from dataclasses import asdict

    from app.operations.check import check

    database, store = _opened(home)
    found = check(database, store, hashes=hashes, tell=_tell)
    database.close()
    if as_json:
        print_json(asdict(found) | {"sound": found.sound})
    else:
        print(f"{found.blobs} blobs, {found.referenced} referred to by rows, {len(found.unreferenced)} by none.")
        for word, hashes_found in (("missing", found.missing), ("damaged", found.damaged)):
            for sha256 in hashes_found:
                print(f"{word}: {sha256}")
    if not found.sound:
        raise CommandError(f"{len(found.missing)} blobs are missing, {len(found.damaged)} damaged.", 1)
