"""Bring what a person has on disk, a folder or an archive, into the archive that is uploaded."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.errors import CommandError


@contextmanager
def as_archive(path: Path) -> Iterator[Path]:
    """`path` itself if it is a file; a folder packed into a zip that is gone afterwards."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise CommandError(f"There is no file or folder {path}.")
    with tempfile.TemporaryDirectory(prefix="graft-") as folder:
        archive = Path(folder) / f"{path.resolve().name}.zip"
        # Images are compressed already: storing them is as small and much quicker.
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    packed.write(file, file.relative_to(path).as_posix())
        yield archive
