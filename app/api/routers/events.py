"""List and stream the events of a workspace, in the order in which they were committed."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from fastapi.sse import format_sse_event
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.api.deps import Limit, Reader, ReadSession, Services, ServicesDep
from app.api.routes import Route
from app.api.streaming import EventStream, Look, stream
from app.api.views import problems
from app.auth import service as auth
from app.auth.schemas import Scope
from app.auth.service import Principal
from app.core import outbox
from app.core.outbox import Event

router = APIRouter(prefix="/v1/events", tags=["events"], route_class=Route)

# Who may not list the keys is not told of them either.
_FOR_ADMINS = ("key.",)
_MOST = 2**63 - 1  # of a number in the database


class EventOut(BaseModel):
    """An event says what happened: `topic` is `job.state`, `model.created` and so on, of the thing `subject_id`."""

    model_config = ConfigDict(from_attributes=True)

    id: int = Field(validation_alias="sequence", description="Higher than that of every event before, with gaps.")
    topic: str
    subject_id: UUID
    body: dict[str, Any]
    created_at: datetime


class EventsOut(BaseModel):
    """A page has some events, oldest first."""

    items: list[EventOut]
    next_cursor: str | None = Field(default=None, description="Ask again with `after` set to it; null: no more yet.")


After = Annotated[int, Query(ge=0, le=_MOST, description="Only events with a higher id.")]


@router.get("", responses=problems(422), summary="List events")
def list_events(reader: Reader, session: ReadSession, limit: Limit = 50, after: After = 0) -> EventsOut:
    """List events, the oldest first. Remember the id of the last one and ask for those after it; none is missed so.

    Events are kept for GRAFT_EVENT_RETENTION_DAYS, those of a job as long as the job. Events of keys are for keys
    with the scope `admin`.
    """
    found = _visible(session, reader, after, limit + 1)
    more = len(found) > limit
    items = [EventOut.model_validate(one) for one in found[:limit]]
    return EventsOut(items=items, next_cursor=str(items[-1].id) if more else None)


@router.get(
    "/stream",
    response_class=EventStream,
    responses=problems(422),
    summary="Stream events",
)
async def stream_events(
    reader: Reader,
    services: ServicesDep,
    after: Annotated[int | None, Query(ge=0, le=_MOST, description="Only events with a higher id.")] = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=_MOST)] = None,
) -> EventStream:
    """Stream server-sent events, named by their topic, with the same JSON as in the list.

    They are those after `Last-Event-ID` or `after`; if neither is given, those from now on. The stream ends after
    `GRAFT_STREAM_SECONDS`, and when its key is revoked.
    """
    since = last_event_id if last_event_id is not None else after
    settings = services.settings
    look = _look(services, reader, since)
    return stream(look, settings.stream_silence_seconds, services.draining, settings.stream_seconds)


def _look(services: Services, reader: Principal, since: int | None) -> Callable[[], Look]:
    """Return what finds the events after `since`, each once."""

    def look() -> Look:
        nonlocal since
        with services.database.reading() as session:
            if not auth.is_valid(session, reader.key_id):
                return Look([], over=True)
            if since is None:
                since = outbox.newest(session, reader.workspace_id)
            new = _visible(session, reader, since)
        since = new[-1].sequence if new else since
        return Look([_line(EventOut.model_validate(one)) for one in new], more=bool(new))

    return look


def _visible(session: Session, reader: Principal, after: int, limit: int = 500) -> Sequence[Event]:
    is_admin = any(scope.covers(Scope.admin) for scope in reader.scopes)
    return outbox.after(session, reader.workspace_id, after, limit, without=() if is_admin else _FOR_ADMINS)


def _line(event: EventOut) -> bytes:
    return format_sse_event(event=event.topic, id=str(event.id), data_str=json.dumps(event.model_dump(mode="json")))
