"""Pack a folder into an archive for an upload."""

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.errors import CommandError


@contextmanager
def as_archive(path: Path) -> Iterator[Path]:
    """Yield `path` if it is a file. Pack a folder into a temporary zip and yield that."""
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
