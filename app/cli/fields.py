"""Select the fields of a request that the command line gives."""

from typing import Any


def without_none(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None; the service fills in the others."""
    return {name: value for name, value in fields.items() if value is not None}
