"""The service has a folder that its own user alone can read."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from sqlalchemy import make_url

from app.core.settings import Settings

PRIVATE = 0o077  # the permissions of everybody else, which a private file or folder has none of


def make_private(settings: Settings) -> None:
    """Make `GRAFT_HOME` if it is missing, and give nobody else access to it or to a SQLite file that lies elsewhere.

    Files that this process and its children make from now on have mode 0600, folders 0700. What belongs to another
    user is left as it is: only its owner can change that.
    """
    os.umask(PRIVATE)
    settings.home.mkdir(parents=True, exist_ok=True)
    for path in (settings.home, sqlite_file(settings)):
        if path is not None:
            _close_to_others(path)


def sqlite_file(settings: Settings) -> Path | None:
    """Return the file of an SQLite database; None where the database is a server or lies in memory."""
    url = make_url(settings.sqlalchemy_url)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def _close_to_others(path: Path) -> None:
    with suppress(FileNotFoundError, PermissionError):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & PRIVATE:
            path.chmod(mode & ~PRIVATE)
