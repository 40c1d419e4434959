"""A request id, and how long what took, on every answer."""

import re

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import crashed
from app.core.ids import new_id
from app.core.logging import log
from app.predictions.serving.timing import server_timing

HEADER = "X-Request-Id"
_ACCEPTABLE = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestId:
    """ASGI middleware. A caller's own id is kept if it is a plain word; log lines of the request carry it.

    A crash is answered here, not by the framework outside of all middleware, so that it has the id as well.

    A route that fills `request.state.times` has its answer say so in `Server-Timing`, whether it succeeds or not.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ACCEPTABLE.fullmatch(given) else str(new_id())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        started = False

        async def named(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                if "times" in state:
                    headers["Server-Timing"] = server_timing(state["times"])
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, named)
            except Exception as error:
                if not started:
                    await crashed(Request(scope), error)(scope, receive, named)
                elif not isinstance(error.__cause__ or error, ClientDisconnect):
                    # The server breaks the connection off, since the answer has no end.
                    log.error("answer_broke_off", path=scope["path"], exc_info=error)
