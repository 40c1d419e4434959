"""What the commands share: options, the settings, the client, JSON on stdout."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.errors import CommandError

if TYPE_CHECKING:
    from app.cli.client import Client
    from app.core.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines, and nothing else, on stdout.")]


def settings(**said: Any) -> "Settings":
    """The settings, with what the command line gives put over the environment, for this process and its children."""
    from pydantic import ValidationError

    from app.core.settings import Settings

    for field, value in said.items():
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


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Those of them that are not None: what was not said is left to the service."""
    return {name: value for name, value in fields.items() if value is not None}


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))
