"""A request id, and how long what took, on every answer; and a line in the log for each request."""

import re
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.deps import OPEN_ROUTES
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

    `root_path` is the path below which a proxy offers the service; routes and answers take it from the scope.

    With `logs` each request is a line in the log when its answer has ended, but for those of health.
    """

    def __init__(self, app: ASGIApp, logs: bool = False, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path
        self._logs = logs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._root_path:
            scope["root_path"] = self._root_path
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _ACCEPTABLE.fullmatch(given) else str(new_id())
        state = scope.setdefault("state", {})
        state["request_id"] = request_id

        line = RequestLine(scope) if self._logs else None
        started, root = False, scope.get("root_path", "")

        async def named(message: Message) -> None:
            nonlocal started
            if line is not None:
                line.sent(message)
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                # Below a proxy's path, as that path is part of where the caller finds things.
                if root and headers.get("Location", "").startswith("/"):
                    headers["Location"] = root + headers["Location"]
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
            finally:
                if line is not None:
                    line.write()


class RequestLine:
    """Collects what the log says of one request: method, route, status, duration, bytes sent, workspace and key."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._began = time.perf_counter()
        self._status: int | None = None  # none: the connection ended before an answer
        self._bytes = 0

    def sent(self, message: Message) -> None:
        """Take note of a message of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        else:
            self._bytes += len(message.get("body", b""))

    def write(self) -> None:
        """Write the line. The route stands in it as it was declared: a path may hold what is nobody's business."""
        route, caller = getattr(self._scope.get("route"), "path", None), self._scope["state"].get("caller")
        if route in OPEN_ROUTES:
            return
        log.info(
            "request",
            method=self._scope["method"],
            route=route,
            status=self._status,
            ms=round(1000 * (time.perf_counter() - self._began), 1),
            bytes=self._bytes,
            workspace=str(caller.workspace_id) if caller else None,
            key=str(caller.key_id) if caller else None,
        )
