"""Routes of this service: a key is checked before one byte of a body, and each says how large its body may be."""

import json
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Message

from app.api.deps import OPEN_ROUTES, Needs, Services, identify
from app.auth.schemas import Scope
from app.core.settings import Settings

Answer: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

MOST_VALUES = 20_000  # in the JSON of a body: each of them takes much more memory and time than its bytes
MOST_NAMES = 1000  # in one object of it
PARSED_HERE = 1 << 16  # bytes of JSON that the event loop parses itself


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """How large a body may be: the setting of its bytes, bytes beside them, and the most values of its JSON."""

    setting: str = "max_json_bytes"
    beside: int = 0
    values: int = MOST_VALUES

    def bytes_of(self, settings: Settings) -> int:
        """Return the most bytes that a body may have."""
        most: int = getattr(settings, self.setting)
        return most + self.beside

    def exceeded(self, settings: Settings) -> HTTPException:
        """Return the one kind of exception that FastAPI lets pass while it reads a body; `problems` renders it."""
        most, name = self.bytes_of(settings), f"GRAFT_{self.setting.upper()}"
        return HTTPException(413, f"The body is larger than {most} bytes. Send a smaller one, or raise {name}.")


FORM = BodyLimit("max_upload_bytes", beside=2**20)  # a form is a little larger than the file in it
IMAGES = BodyLimit("max_predict_bytes")


def takes(limit: BodyLimit) -> Callable[[Endpoint], Endpoint]:
    """Say of an endpoint how large its body may be, below the route's decorator; without it, as small as JSON is.

    Large ones are for routes that write the body to disk as it comes, or that count what all their calls hold.
    """

    def marked(endpoint: Endpoint) -> Endpoint:
        endpoint.body_limit = limit  # type: ignore[attr-defined]
        return endpoint

    return marked


class Route(APIRoute):
    """A route whose caller is known, and may call it, before the body is looked at."""

    def get_route_handler(self) -> Answer:
        """Return what FastAPI calls with each request."""
        in_full = super().get_route_handler()
        limit: BodyLimit = getattr(self.endpoint, "body_limit", BodyLimit())
        scopes = set(_scopes(self.dependant))
        is_open = self.path in OPEN_ROUTES

        async def handle(request: Request) -> Response:
            services: Services = request.app.state.services
            request.state.caller = None
            if not is_open:
                request.state.caller = caller = await identify(services, request.headers.get("authorization"))
                for scope in scopes:
                    caller.require(scope)
            return await self.answer(LimitedRequest(request, limit, services.settings), in_full)

        return handle

    async def answer(self, request: Request, in_full: Answer) -> Response:
        """Answer a caller who may call; `in_full` is FastAPI's way to the endpoint."""
        return await in_full(request)


def _scopes(dependant: Dependant) -> Iterator[Scope]:
    """Yield the scopes that an endpoint's dependencies ask for."""
    for one in dependant.dependencies:
        if isinstance(one.call, Needs):
            yield one.call.scope
        yield from _scopes(one)


class LimitedRequest(Request):
    """A request whose body is counted: by its declared length before a byte is read, and as it comes.

    FastAPI's own `max_body_size` answers with plain text, whatever the application says.
    """

    def __init__(self, request: Request, limit: BodyLimit, settings: Settings) -> None:
        super().__init__(request.scope, self._counted, request._send)
        self._unlimited, self._limit, self._settings = request.receive, limit, settings
        self._received = 0

    async def _counted(self) -> Message:
        most = self._limit.bytes_of(self._settings)
        declared = self.headers.get("content-length", "")
        if not self._received and declared.isdecimal() and int(declared) > most:
            raise self._limit.exceeded(self._settings)
        message = await self._unlimited()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > most:
                raise self._limit.exceeded(self._settings)
        return message

    async def json(self) -> Any:
        """Return the body, parsed in a thread if it is large. Raises `HTTPException` for too many values."""
        body = await self.body()
        check_values(body, self._limit.values)
        parse = partial(json.loads, object_pairs_hook=_named)
        return parse(body) if len(body) <= PARSED_HERE else await run_in_threadpool(parse, body)


def _named(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object of not too many names: each of them that is unknown is an error to tell of."""
    if len(pairs) > MOST_NAMES:
        raise HTTPException(413, f"An object in the JSON of the body has more than {MOST_NAMES} names. Send fewer.")
    return dict(pairs)


def check_values(body: bytes, most: int = MOST_VALUES) -> None:
    """Refuse JSON of too many values before it is parsed. Their separators are counted, those in texts included."""
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > most:
        raise HTTPException(413, f"The JSON of the body holds more than {most} values. Send fewer at a time.")
