"""Report liveness and readiness to anyone, without anything that a stranger should not know."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.readiness import Readiness
from app.api.routes import Route

router = APIRouter(tags=["health"], route_class=Route)


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class ReadinessOut(BaseModel):
    status: Literal["ready", "not_ready"]
    checks: dict[str, str] = Field(description="For each part `ok`, or a word for its fault.")


# `async`, because callers can keep all threads busy.
@router.get("/healthz", summary="Check that the process is alive")
async def healthz() -> Health:
    return Health()


def readiness_of(request: Request) -> Readiness:
    """Return the readiness of the running application."""
    readiness: Readiness = request.app.state.readiness
    return readiness


@router.get("/readyz", summary="Check that the service can answer", responses={503: {"model": ReadinessOut}})
async def readyz(request: Request, response: Response) -> ReadinessOut:
    """Return a 200 if this process can answer: its database has the right schema, and the pinned models are loaded.

    The status is 503 also while the process is about to stop (`draining`). The response comes within 2 s and may be 3 s
    old.
    """
    found = await readiness_of(request).for_answers()
    return _answer(response, found, ready=found["answers"] == "ok")


@router.get(
    "/readyz/uploads",
    summary="Check that the service can take uploads and jobs",
    responses={503: {"model": ReadinessOut}},
)
async def readyz_uploads(request: Request, response: Response) -> ReadinessOut:
    """Return a 200 if this process can also write rows to the database and blobs to the store."""
    found = await readiness_of(request).for_uploads()
    return _answer(response, found, ready=all(word == "ok" for word in found.values()))


def _answer(response: Response, found: dict[str, str], *, ready: bool) -> ReadinessOut:
    response.status_code = 200 if ready else 503
    checks = {name: word for name, word in found.items() if name != "answers"}
    if found["answers"] == "draining":
        checks["process"] = "draining"
    return ReadinessOut(status="ready" if ready else "not_ready", checks=checks)
