"""Fixtures for all tests: the two kinds of database, fresh and migrated; a Redis; settings in a folder of their own."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from app.core.database import Database
from app.core.migrations import migrate
from app.core.settings import Settings
from app.storage import S3Options
from tests.support import servers
from tests.support.databases import Databases

pytest_plugins = ["tests.support.durations"]

# Where Python may not keep what it compiles, each of some thousand processes compiles torch and all the rest again,
# which is half of what they do.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Folders with long tests, the longest first: for what is long and begins last, all other processes wait.
_FIRST = ("worker", "e2e", "chaos", "cli", "vision", "bench", "jobs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folders = {item: item.path.relative_to(Path(__file__).parent).parts[0] for item in items}
    items.sort(key=lambda item: _FIRST.index(folders[item]) if folders[item] in _FIRST else len(_FIRST))


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own GRAFT_ variables are not the tests' business; nor is the network."""
    for name in list(os.environ):
        if name.startswith("GRAFT_") and not name.startswith("GRAFT_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GRAFT_WEIGHTS_DOWNLOAD", "false")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[Callable[[str], str]]:
    """The URL of a database by its name, on the server of GRAFT_TEST_DATABASE_URL or on one that is started here."""
    given = os.environ.get("GRAFT_TEST_DATABASE_URL")
    if given:
        yield lambda name: make_url(given).set(drivername="postgresql", database=name).render_as_string(False)
    else:
        with servers.postgres() as server:
            yield server.url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    given = os.environ.get("GRAFT_TEST_REDIS_URL")
    if given:
        yield given
    else:
        with servers.redis_server() as url:
            yield url


@pytest.fixture(scope="session")
def s3_options() -> Iterator[S3Options]:
    """How to reach an S3 server with one empty bucket."""
    from tests.support.buckets import s3_server  # imports libraries that few tests need

    with s3_server() as options:
        yield options


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "migrated.db"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: Callable[[str], str]) -> Iterator[str]:
    name = f"graft_migrated_{os.getpid()}"
    _execute(postgres_url("postgres"), f"CREATE DATABASE {name}")
    _migrate(postgres_url(name))
    yield name
    _execute(postgres_url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


def _migrate(url: str) -> None:
    database = Database(url)
    migrate(database)
    database.close()


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


@pytest.fixture
def sqlite_url(migrated_sqlite: Path, tmp_path: Path) -> str:
    """A fresh, migrated SQLite database."""
    shutil.copy(migrated_sqlite, tmp_path / "graftwork.db")
    return f"sqlite:///{tmp_path / 'graftwork.db'}"


@pytest.fixture(scope="session")
def databases(migrated_postgres: str, postgres_url: Callable[[str], str]) -> Iterator[Databases]:
    databases = Databases(postgres_url, migrated_postgres)
    yield databases
    databases.close()


@pytest.fixture
def postgresql_url(databases: Databases) -> Iterator[str]:
    """An empty, migrated PostgreSQL database."""
    with databases.one() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each test that takes this runs on both kinds of database."""
    database = Database(request.getfixturevalue(f"{request.param}_url"))
    yield database
    database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """An embedded service's settings, below a folder of this test's own; its database is `sqlite_url`'s."""
    return Settings(home=tmp_path, weights_download=False, engines="torch", _env_file=None)  # type: ignore[call-arg]
