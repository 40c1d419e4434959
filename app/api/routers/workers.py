"""List the workers with their devices and jobs, also the lost ones."""

from fastapi import APIRouter

from app.api.deps import Cursor, Limit, Reader, ReadSession
from app.api.routes import Route
from app.api.views import ListOut, problems
from app.jobs import workers
from app.jobs.schemas import WorkerOut

router = APIRouter(prefix="/v1/workers", tags=["workers"], route_class=Route)


@router.get("", responses=problems(422), summary="List workers")
def list_workers(reader: Reader, session: ReadSession, limit: Limit = 50, cursor: Cursor = None) -> ListOut[WorkerOut]:
    """List the workers, which serve every workspace. A lost worker is listed for a day, and a stopped one is not."""
    page = workers.list_workers(session, reader.workspace_id, limit=limit, cursor=cursor)
    return ListOut(items=list(page.items), next_cursor=page.next_cursor)
