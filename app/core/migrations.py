"""Bring a database to the newest schema, and tell whether it has the one that this code needs."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from app.core.database import Database
from app.core.errors import Conflict

FOLDER = Path(__file__).parents[2] / "migrations"
_LOCK = 0x67726166_74  # any number that every Graftwork process uses


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema has the revision that a database is at (None: it is empty), and the one that this code needs."""

    found: str | None
    needed: str
    known: bool  # whether this code has the revision that was found

    @property
    def fits(self) -> bool:
        return self.found == self.needed

    def says(self) -> str:
        """Return why this code cannot use the database, and what to do."""
        if self.found is None:
            return "The database is empty. Run `graft migrate`."
        if not self.known:
            return f"The database's schema ({self.found}) is a newer Graftwork's. Start that version, or a later one."
        return (
            f"The database's schema ({self.found}) is older than this code needs ({self.needed}). Run `graft migrate`."
        )


def schema_of(connection: Connection) -> Schema:
    """Compare the schema that a database has with the one that this code needs."""
    scripts = _scripts()
    found = MigrationContext.configure(connection).get_current_revision()
    return Schema(found, _newest(), found in {script.revision for script in scripts.walk_revisions()})


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config())


@cache
def _newest() -> str:
    newest = _scripts().get_current_head()
    assert newest is not None
    return newest


def migrate(database: Database) -> None:
    """Upgrade to the newest schema; several processes may call it at once, and one of them does it.

    Raises `Conflict` for a database that a newer version has changed already.
    """
    config = alembic_config()
    with database.migrating() as connection:  # on SQLite this is the write lock
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        schema = schema_of(connection)
        if schema.found is not None and not schema.known:
            raise Conflict(schema.says(), code="newer_schema")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
