"""Serve a model's report, its pictures, and its answers for every image of a split."""

from functools import partial
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Path
from fastapi.responses import Response, StreamingResponse

from app.api.deps import Reader, ReadSession, Services, ServicesDep
from app.api.downloads import TABLE, TableFormat, blob_response, table_response
from app.api.routes import Route
from app.api.views import problems
from app.registry import service as registry
from app.registry.orm import Model
from app.registry.schemas import ModelOut, ReportFile, ReportOut
from app.storage import Blob
from app.vision.artefacts.tables import csv_lines
from app.vision.tasks import part_of_task

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=Route)

_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get("/{model}/report", responses=problems(404, 422), summary="Get a model's report")
def get_report(model: str, reader: Reader, session: ReadSession) -> ReportOut:
    """Get the metrics, the training's epochs, and the addresses of pictures and tables. `model` is an id, a name or
    `name@alias`."""
    found = registry.find(session, reader.workspace_id, model)
    return ReportOut(
        model=ModelOut.model_validate(found),
        best_epoch=found.training.get("best_epoch"),
        spec=found.training.get("spec", {}),
        epochs=found.training.get("epochs", []),
        pictures=_files(found, ".png", f"/v1/models/{found.id}/pictures/{{name}}"),
        evaluations=_files(found, ".jsonl", f"/v1/models/{found.id}/evaluations?split={{split}}"),
    )


@router.get(
    "/{model}/pictures/{name}",
    response_class=Response,
    responses=_PNG | problems(404, 422),
    summary="Get a picture of a model's report",
)
def get_picture(
    model: str,
    name: Annotated[str, Path(pattern=r"^[a-z-]+\.png$", description="A name from the report, such as `curves.png`.")],
    reader: Reader,
    services: ServicesDep,
) -> StreamingResponse:
    """Get a PNG: `curves.png`, `confusion-val.png`, `reliability-val.png` or `coverage-val.png`. A model with a test
    split has the same pictures for `test`."""
    blob = _find(services, reader.workspace_id, model, name)
    return blob_response(services.store, blob.sha256, blob.size, "image/png", name)


@router.get(
    "/{model}/evaluations",
    response_class=Response,
    responses=TABLE | problems(404, 422),
    summary="Download a model's answers for a split",
)
def get_evaluations(
    model: str,
    reader: Reader,
    services: ServicesDep,
    split: Literal["val", "test"] = "val",
    format: TableFormat = "jsonl",
) -> StreamingResponse:
    """Download one line for each image: its SHA-256 as `image`, the split, the true and the predicted class, the
    probabilities of both, the `ood_score`, and (in JSON) the `top` five classes. The response is streamed."""
    blob = _find(services, reader.workspace_id, model, f"evaluations-{split}.jsonl")
    to_csv = partial(csv_lines, columns=part_of_task("tables").COLUMNS)
    return table_response(services.store, blob, f"evaluations-{split}", format, to_csv)


def _find(services: Services, workspace_id: UUID, reference: str, name: str) -> Blob:
    with services.database.reading() as session:
        return registry.find_file(registry.find(session, workspace_id, reference), name)


def _files(model: Model, suffix: str, address: str) -> list[ReportFile]:
    return [
        ReportFile(
            name=name,
            href=address.format(name=name, split=name.partition("-")[2].partition(".")[0]),
            size=blob["size"],
        )
        for name, blob in sorted(model.files.items())
        if name.endswith(suffix)
    ]
