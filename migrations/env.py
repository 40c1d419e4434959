"""Run migrations for Alembic, with every table imported, on a given connection or the settings' database."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

import app.api.orm
import app.auth.orm
import app.core.outbox
import app.datasets.orm
import app.jobs.orm
import app.predictions.orm
import app.registry.orm  # noqa: F401
from app.core.clock import UtcDateTime
from app.core.database import Base, Database
from app.core.settings import Settings


def _render(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    if kind == "type" and isinstance(item, UtcDateTime):
        autogen.imports.add("from app.core.clock import UtcDateTime")
        return "UtcDateTime()"
    return False


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # SQLite alters a table by copying it.
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_render,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    database = Database(Settings().sqlalchemy_url)
    with database.engine.connect() as connection:
        _migrate(connection)
    database.close()
