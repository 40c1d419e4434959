"""Give routes what they depend on: the service's parts, a session for each request, and the caller."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Security
from sqlalchemy.orm import Session

from app.api.docs import BEARER
from app.api.draining import Draining
from app.api.predict_path.kept import PredictPath
from app.api.uploads.chunks import Hashes
from app.auth import service as auth
from app.auth.schemas import Scope
from app.auth.service import Principal
from app.core.database import Database
from app.core.paging import MAX_LIMIT
from app.core.settings import Settings
from app.jobs.doorbell import Doorbell
from app.predictions.service import Predictor
from app.predictions.serving.admission import Admission
from app.storage import BlobStore
from app.vision.backbones.weights import WeightStore


@dataclass(frozen=True, slots=True)
class Services:
    """Holds the parts of one API process; `create_app` makes them, and they are closed with it."""

    settings: Settings
    database: Database
    store: BlobStore
    weights: WeightStore
    doorbell: Doorbell
    predictions: Predictor
    draining: Draining
    admission: Admission
    hashes: Hashes
    predict_path: PredictPath


# `async`, though they wait for nothing: FastAPI would run each of them in a thread of its own.
async def get_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


def _reading(services: ServicesDep) -> Iterator[Session]:
    with services.database.reading() as session:
        yield session


def _writing(services: ServicesDep) -> Iterator[Session]:
    with services.database.writing() as session:
        yield session


# scope="function": the transaction ends, and may fail, before the answer is sent.
ReadSession = Annotated[Session, Depends(_reading, scope="function")]
WriteSession = Annotated[Session, Depends(_writing, scope="function")]

# Routes that answer without a key. Every other route is closed; a test walks them all.
OPEN_ROUTES = frozenset({"/healthz", "/readyz", "/readyz/uploads", "/v2/health/live", "/v2/health/ready"})


async def identify(services: Services, authorization: str | None) -> Principal:
    """Return who sends that header. Raises `Unauthenticated`."""
    keys = services.predict_path.keys
    return await keys.find(authorization, partial(_read_principal, services.database, authorization))


async def authenticate(request: Request, _documented: Annotated[Any, Security(BEARER)]) -> Principal | None:
    """Return who is calling, as `app.api.routes.Route` has found out; None on an open route.

    It is the application's own dependency: a route that is of another kind fails here.
    """
    caller: Principal | None = request.state.caller
    return caller


def _read_principal(database: Database, authorization: str | None) -> Principal:
    with database.reading() as session:
        return auth.authenticate(session, authorization)


class Needs:
    """A dependency that gives the caller if its key has the scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, principal: Annotated[Principal | None, Depends(authenticate)]) -> Principal:
        assert principal is not None, "an open route cannot ask who is calling"
        principal.require(self.scope)
        return principal


Reader = Annotated[Principal, Depends(Needs(Scope.read))]
PredictCaller = Annotated[Principal, Depends(Needs(Scope.predict))]
Writer = Annotated[Principal, Depends(Needs(Scope.write))]
Admin = Annotated[Principal, Depends(Needs(Scope.admin))]

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Items a page.")]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Any text of your own. Sent again, the call makes nothing new and gets the first answer.",
    ),
]
Wait = Annotated[
    float,
    Query(ge=0, le=60, description="Seconds to wait for the end before answering; saves a polling loop."),
]
