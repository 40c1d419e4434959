"""Refuse the calls of a caller whom a model has just refused, before anything is done for them."""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.deps import Services
from app.api.problems import problem


class Refusals:
    """ASGI middleware. Under load most calls are refused; what each of them costs is taken from those that are not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].endswith("/predict"):
            services: Services = scope["app"].state.services
            who = caller(scope)
            if who is not None and (error := services.admission.refusal(who)) is not None:
                await problem(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def caller(scope: Scope) -> tuple[str, bytes, str] | None:
    """Who asks for what: the model, the options and the key. None for JSON, which has options in its body: another
    deadline may get another answer."""
    headers = Headers(scope=scope)
    if headers.get("content-type", "").lower().startswith("application/json"):
        return None
    return scope["path"], scope["query_string"], headers.get("authorization", "")
