"""Bring a database to the newest schema."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from app.core.database import Database

FOLDER = Path(__file__).parents[2] / "migrations"
_LOCK = 0x67726166_74  # any number that every Graftwork process uses


def alembic_config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


def migrate(database: Database) -> None:
    """Upgrade to the newest schema; several processes may call it at once, and one of them does it."""
    config = alembic_config()
    with database.migrating() as connection:  # on SQLite this is the write lock
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
