"""The predict route, which goes past FastAPI's dependencies where a call is like one before."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from app.api.predict_path.kept import Call, PredictPath
from app.api.problems import problem
from app.api.routes import Answer, Route


def the_call(request: Request) -> Call | None:
    """Return what makes two calls the same to `Refusals`: the model, the options and the key.

    It is None for JSON, which has options in its body: another deadline may get another answer.
    """
    if request.headers.get("content-type", "").lower().startswith("application/json"):
        return None
    return request.scope["path"], request.scope["query_string"], request.headers.get("authorization", "")


class DirectRoute(Route):
    """A route that calls its endpoint directly where what the query asks is known from calls before.

    FastAPI works out for each call anew what its endpoint depends on. That is a third of what a call takes of the event
    loop, for whose thread the threads that decode and classify have to wait, since it holds the interpreter's lock.
    The endpoint takes `(model, request, caller, services, options)`.
    """

    async def answer(self, request: Request, in_full: Answer) -> Response:
        """Refuse the call, call the endpoint, or go the usual way."""
        services = request.app.state.services
        path: PredictPath = services.predict_path
        if (error := path.refusals.get(the_call(request))) is not None:
            return problem(request, error)
        options = path.queries.get(request.scope["query_string"])
        if options is None or not path.shortcuts.direct:
            return await in_full(request)
        endpoint: Callable[..., Coroutine[Any, Any, Response]] = self.endpoint
        return await endpoint(request.path_params["model"], request, request.state.caller, services, options)
