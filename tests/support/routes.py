"""Every route of the application, from the application itself."""

import re
from collections.abc import Iterator, Sequence

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from app.core.ids import new_id


def walk_routes(routes: Sequence[BaseRoute]) -> Iterator[Route]:
    """Yield every route, those that the schema leaves out too."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from walk_routes(included.routes)
        elif isinstance(route, Mount):
            assert isinstance(route.app, StaticFiles), f"{route.path} is mounted: what is in it?"
            assert route.path == "/docs/files"
        else:
            assert isinstance(route, Route | APIRoute)
            yield route


def walk(routes: Sequence[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Yield every method and path; HEAD is left out, which goes with GET."""
    for route in walk_routes(routes):
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, route.path


def filled(path: str, value: str | None = None) -> str:
    """Return the path with a value, or ids of nothing, for its parameters."""
    return re.sub(r"\{\w+\}", value or str(new_id()), path)
