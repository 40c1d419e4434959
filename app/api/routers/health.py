"""Health: open to anyone, says nothing that a stranger should not know."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from app.api.readiness import Readiness

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class ReadinessOut(BaseModel):
    status: Literal["ready", "not_ready"]
    checks: dict[str, str] = Field(description="`ok`, or a word for what is wrong with it.")


# `async`, for no thread may be free where callers keep all of them busy.
@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    return Health()


def readiness_of(request: Request) -> Readiness:
    """Return what the running application knows of its readiness."""
    readiness: Readiness = request.app.state.readiness
    return readiness


@router.get("/readyz", summary="Can it answer?", responses={503: {"model": ReadinessOut}})
async def readyz(request: Request, response: Response) -> ReadinessOut:
    """200 where this process can answer: the database has the schema that it needs, and the pinned models are loaded.

    503 also while it is about to stop (`draining`). The answer comes within 2 s and may be 3 s old.
    """
    found = await readiness_of(request).for_answers()
    return _answer(response, found, ready=found["answers"] == "ok")


@router.get("/readyz/uploads", summary="Can it take uploads and jobs?", responses={503: {"model": ReadinessOut}})
async def readyz_uploads(request: Request, response: Response) -> ReadinessOut:
    """200 where it can also write rows, and blobs into the store."""
    found = await readiness_of(request).for_uploads()
    return _answer(response, found, ready=all(word == "ok" for word in found.values()))


def _answer(response: Response, found: dict[str, str], *, ready: bool) -> ReadinessOut:
    response.status_code = 200 if ready else 503
    checks = {name: word for name, word in found.items() if name != "answers"}
    if found["answers"] == "draining":
        checks["process"] = "draining"
    return ReadinessOut(status="ready" if ready else "not_ready", checks=checks)
