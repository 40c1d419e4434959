"""Ids are UUIDv7: unique without asking anyone, and sorted by the time they were made (RFC 9562)."""

from uuid import UUID

from uuid_utils.compat import uuid7

__all__ = ["new_id", "parse_id"]


def new_id() -> UUID:
    return UUID(int=uuid7().int)


def parse_id(text: str) -> UUID | None:
    """Return the id that `text` spells, or None."""
    try:
        return UUID(text)
    except ValueError:
        return None
