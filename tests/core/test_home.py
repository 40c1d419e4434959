"""The service's folder and what it makes there are its user's alone, whatever the umask was."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.home import make_private, sqlite_file
from app.core.settings import Settings


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def settings_of(home: Path, **more: str) -> Settings:
    return Settings(home=home, _env_file=None, **more)  # type: ignore[call-arg, arg-type]


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_home_and_what_is_made_in_it_are_private(tmp_path: Path) -> None:
    home = tmp_path / "home"
    make_private(settings_of(home))
    (home / "file").write_text("x")
    (home / "folder").mkdir()
    # A child has the same: caches and images are written by children.
    program = "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()"
    subprocess.run([sys.executable, "-c", program, str(home / "folder" / "of-a-child")], check=True)
    assert [mode(home / name) for name in (".", "file", "folder", "folder/of-a-child")] == [0o700, 0o600, 0o700, 0o600]


def test_a_home_and_a_database_that_others_could_read_are_closed(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "rows.db"
    home.mkdir(mode=0o755)
    sqlite3.connect(elsewhere).close()
    elsewhere.touch(0o644)
    make_private(settings_of(home, database_url=f"sqlite:///{elsewhere}"))
    assert (mode(home), mode(elsewhere)) == (0o700, 0o600)


def test_a_database_that_is_a_server_has_no_file(tmp_path: Path) -> None:
    given = settings_of(tmp_path, database_url="postgresql://somebody@127.0.0.1/rows")
    assert sqlite_file(given) is None
    make_private(given)
