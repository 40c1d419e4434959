"""Create a key without the API, for a service that has none yet."""

from typing import Any

from app.auth import service as auth
from app.auth.schemas import CreatedKey, KeyOut, Scope
from app.cli.errors import CommandError
from app.core.database import configured_database
from app.core.settings import Settings


def create_direct(settings: Settings, workspace: str, name: str, scope: str) -> dict[str, Any]:
    """Create a key in the database of the settings and return it as the API would."""
    if scope not in list(Scope):
        raise CommandError(f"There is no scope {scope!r}; use one of {', '.join(Scope)}.", 2)
    database = configured_database(settings)
    with database.writing() as session:
        owner = auth.ensure_workspace(session, workspace)
        key, secret = auth.create_key(session, owner.id, name, [Scope(scope)])
        view = CreatedKey(secret=secret, **KeyOut.model_validate(key).model_dump())
    database.close()
    return view.model_dump(mode="json")
