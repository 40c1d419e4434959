"""Refuse bodies that are too large: by their declared length before a byte is read, by their count where none is given.

FastAPI's own `max_body_size` answers the first kind with plain text, whatever the application says.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True, slots=True)
class Limit:
    """The most bytes that a body may have, and the setting that says so."""

    max_bytes: int
    setting: str

    def exceeded(self) -> HTTPException:
        """The one kind of exception that FastAPI lets pass while it reads a body; `problems` renders it."""
        detail = f"The body is larger than {self.max_bytes} bytes. Send a smaller one, or raise {self.setting}."
        return HTTPException(413, detail)


class BodyLimit:
    """ASGI middleware. `limits` are by the start of a path, the longest first; the last one is for all others.

    The error is raised where the body is read, so an upload without a key is refused for that, unread.
    """

    def __init__(self, app: ASGIApp, limits: Mapping[str, Limit]) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = next(limit for start, limit in self._limits.items() if scope["path"].startswith(start))
        declared = Headers(scope=scope).get("content-length", "")
        received = 0

        async def counted() -> Message:
            nonlocal received
            if declared.isdecimal() and int(declared) > limit.max_bytes:
                raise limit.exceeded()
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit.max_bytes:
                    raise limit.exceeded()
            return message

        await self._app(scope, counted, send)
