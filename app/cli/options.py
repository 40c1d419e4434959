"""Provide what the commands share: options, the settings, the client, JSON on stdout."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import CommandError

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.core.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print only JSON on stdout.")]


def settings(**overrides: Any) -> "Settings":
    """Return the settings. `overrides` that are not None are written to the environment first, also for children."""
    from pydantic import ValidationError

    from app.core.settings import Settings

    for field, value in overrides.items():
        if value is not None:
            os.environ[f"GRAFT_{field.upper()}"] = str(value.absolute() if isinstance(value, Path) else value)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        raise CommandError(f"GRAFT_{str(first['loc'][0]).upper()} is {first['input']!r}: {first['msg']}.") from None


def client() -> "Client":
    from app.cli.client import Client

    return Client(settings=settings())


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
