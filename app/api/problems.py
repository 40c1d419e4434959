"""Render errors as RFC 9457 problem documents. No stack trace and no internal exception text leaves the server."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from app.core.errors import ChecksumMismatch, FieldError, GraftError, Malformed, NotFound, TooLarge
from app.core.logging import log

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 32  # that an answer names


class FieldProblem(BaseModel):
    field: str = Field(
        description="A dotted path in the body, or the name of a parameter, a header or an uploaded file."
    )
    code: str
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    code: str = Field(description="A stable word for programs.")
    detail: str
    instance: str
    errors: list[FieldProblem] = Field(default=[], max_length=MOST_ERRORS)
    error_count: int | None = Field(default=None, description="The number of errors, where it is more than are listed.")
    request_id: str | None = Field(default=None, description="With a 500: the request's id, as in the service's log.")
    error: str | None = Field(
        default=None, description="The same text as `detail`, where the protocol of `/v2` has it."
    )


def own_path(scope: Scope) -> str:
    """Return a request's path as routes have it, without that of a proxy."""
    path: str = scope.get("path", "")
    return path.removeprefix(scope.get("root_path", ""))


def problem(request: Request, error: GraftError, count: int = 0) -> JSONResponse:
    """Return the problem document for `error`, with the headers that its status needs.

    `count` is the number of all errors, where `error` holds some of them.
    """
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="graftwork"'
    body = Problem(
        type=f"urn:graftwork:problem:{error.code}",
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail,
        instance=request.url.path,
        errors=[FieldProblem(**one.as_dict()) for one in error.errors[:MOST_ERRORS]],
        error_count=max(count, len(error.errors)) if max(count, len(error.errors)) > MOST_ERRORS else None,
        request_id=request.state.request_id if error.status == 500 else None,
        error=error.detail if own_path(request.scope).startswith("/v2") else None,
    )
    return JSONResponse(
        body.model_dump(exclude_none=True), status_code=error.status, media_type=MEDIA_TYPE, headers=headers
    )


def install(app: FastAPI) -> None:
    """Render every error of this application as a problem document."""

    # `async`, though they wait for nothing: each would be run in a thread of its own.
    @app.exception_handler(GraftError)
    async def known(request: Request, error: GraftError) -> JSONResponse:
        if error.status >= 500:
            # Where nothing failed, a busy service refuses hundreds of calls a second: no stack is worth formatting.
            cause = error.__cause__
            log.error("request_failed", path=request.url.path, code=error.code, detail=error.detail, exc_info=cause)
        return problem(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(request, _invalid(error), len(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        response = problem(request, _from_http(request, error))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        log.info("caller_gone", path=request.url.path)
        return Response(status_code=400)  # nobody reads it


def crashed(request: Request, error: Exception) -> JSONResponse:
    """Log a fault of the service's own, and return the answer; both have the request's id."""
    log.error("request_crashed", path=request.url.path, exc_info=error)
    detail = (
        f"The service failed, and its log says why, under the request's id {request.state.request_id}. "
        "Nothing of this request was stored."
    )
    return problem(request, GraftError(detail))


def _invalid(error: RequestValidationError) -> GraftError:
    from app.core.errors import Invalid

    details = error.errors()
    if any(one["type"] == "json_invalid" for one in details):
        return _not_json(details[0].get("ctx", {}).get("error", "it cannot be parsed"))
    fields = [FieldError(_field(one), _message(one), one["type"]) for one in details[:MOST_ERRORS]]
    summary = "; ".join(f"{one.field}: {one.message}" for one in fields[:3])
    return Invalid(f"{summary}.", errors=fields)


def _field(error: Any) -> str:
    """Return a field's dotted path: `head.dropout` for ("body", "head", "dropout")."""
    location = error["loc"][1:] if error["loc"][0] in ("body", "query", "path", "header") else error["loc"]
    path = ".".join(str(part) for part in location) or "body"
    return path.encode("utf-8", "backslashreplace").decode()  # JSON may hold names that UTF-8 cannot


def _message(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "there is no such field; GET /docs lists them"
    if error["type"] == "missing":
        return "is required"
    message = error["msg"].removeprefix("Value error, ")
    value = error.get("input")
    value = value[:200] if isinstance(value, str) else value
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else ""
    shown = shown if len(shown) <= 100 else shown[:97] + "…"
    return f"{message[0].lower()}{message[1:]}" + (f", not {shown}" if shown and shown not in message else "")


def _not_json(why: str) -> Malformed:
    detail = f"The body is not JSON: {why}. Send one JSON object, in UTF-8."
    return Malformed(detail, errors=[FieldError("body", detail, "malformed")])


def _from_http(request: Request, error: HTTPException) -> GraftError:
    """Return our error for a request that the framework refused."""
    if error.status_code == 404:
        return NotFound(f"There is no route {request.url.path}. GET /docs lists all routes.", code="no_such_route")
    if error.status_code == 400:  # raised for a JSON body alone; routes that read forms put it in their own words
        return _not_json("it cannot be parsed")
    if error.status_code == 413:
        return TooLarge(error.detail, errors=[FieldError("body", error.detail, "too_large")])
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        known = GraftError(
            f"{request.url.path} does not accept {request.method}, but {allowed}. GET /docs lists all routes.",
            code="method_not_allowed",
        )
    else:
        known = GraftError(str(error.detail), code=f"http_{error.status_code}")
    known.status, known.title = error.status_code, HTTPStatus(error.status_code).phrase
    return known


def _phrase(status: int) -> str:
    return ChecksumMismatch.title if status == ChecksumMismatch.status else HTTPStatus(status).phrase


def document(schema: dict[str, Any]) -> None:
    """Describe every error in the OpenAPI `schema` as a problem document, also those that FastAPI adds by itself, and
    add the response for a malformed body."""
    reference = {"$ref": f"#/components/schemas/{Problem.__name__}"}
    for operations in schema["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                problem = {"description": _phrase(400), "content": {MEDIA_TYPE: {"schema": reference}}}
                operation["responses"].setdefault("400", problem)
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                described = [kind.get("schema", {}).get("$ref", "") for kind in content.values()]
                if status >= "400" and any(one.endswith(("/Problem", "/HTTPValidationError")) for one in described):
                    response["content"] = {MEDIA_TYPE: {"schema": reference}}
                    response["description"] = _phrase(int(status))
    for unused in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(unused, None)
