"""Health: open to anyone, says nothing that a stranger should not know."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import text

from app.api.deps import Services, ServicesDep
from app.api.routes import Route
from app.core.errors import GraftError
from app.core.logging import log

router = APIRouter(tags=["health"], route_class=Route)


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    status: Literal["ready", "not_ready"]
    checks: dict[str, str]


@router.get("/healthz", summary="Is the process alive?")
def healthz() -> Health:
    return Health()


def _check_database(services: Services) -> str:
    with services.database.reading() as session:
        session.execute(text("SELECT version_num FROM alembic_version"))
    return "ok"


def _check_storage(services: Services) -> str:
    services.store.check()
    return "ok"


def checks(services: Services) -> dict[str, str]:
    """What this process needs for its work: `ok`, or what is the matter with it."""
    found: dict[str, str] = {}
    for name, check in (("database", _check_database), ("storage", _check_storage)):
        try:
            found[name] = check(services)
        except Exception as error:  # whatever it is, this process cannot take work now
            log.warning("not_ready", check=name, error=str(error))
            found[name] = error.code if isinstance(error, GraftError) else "unavailable"
    return found


@router.get("/readyz", summary="Can it take work?", responses={503: {"model": Readiness}})
def readyz(
    response: Response,
    services: ServicesDep,
) -> Readiness:
    found = checks(services)
    ready = all(result == "ok" for result in found.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ready" if ready else "not_ready", checks=found)
