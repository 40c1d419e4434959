"""Explain errors of the database's driver: what is wrong, that nothing was changed, and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.errors import Invalid, StorageFull, Unavailable
from app.core.logging import log


@contextmanager
def driver_errors_explained() -> Iterator[None]:
    """Turn the database driver's errors of the body into those that a caller can act on."""
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        if _is_full(error):
            _log(error)
            raise StorageFull(
                "The database's disk has no room. Nothing was changed; free some space.",
                retry_after=30,
            ) from error
        _log(error)
        raise Unavailable(
            "The database does not answer. Nothing was changed; try again shortly.",
            code="database_unavailable",
            retry_after=2,
        ) from error
    except InternalError as error:
        if not error.connection_invalidated:
            raise
        _log(error)
        raise Unavailable(
            "The database ended the connection. Nothing was changed; try again shortly.",
            code="database_unavailable",
            retry_after=2,
        ) from error
    except PoolTimeout as error:
        raise Unavailable(
            "All connections to the database are in use. Nothing was changed; try again shortly.",
            code="database_unavailable",
            retry_after=2,
        ) from error
    except DataError as error:
        raise Invalid(
            f"The database cannot keep a value ({_first_line(error)}). Send text without NUL and numbers in range.",
            code="bad_value",
        ) from error


def _is_full(error: DBAPIError) -> bool:
    """Return whether the disk is full: SQLite and PostgreSQL each have a code for it."""
    original = error.orig
    names = getattr(original, "sqlite_errorname", None), getattr(original, "sqlstate", None)
    return names[0] == "SQLITE_FULL" or names[1] == "53100"


def _log(error: DBAPIError) -> None:
    """Log what the driver says. It names the server's address, which is for the operator and for no caller."""
    log.warning("database_error", error=_first_line(error))


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
