"""Create, list and download a dataset's frozen versions, and say where an image was used."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse, StreamingResponse

from app.api.deps import Reader, ReadSession, ServicesDep, Writer
from app.api.routers.dataset_images import Sha256
from app.api.routes import Route
from app.api.views import ListOut, problems
from app.core.errors import NotFound
from app.datasets import images as dataset_images
from app.datasets import service as datasets
from app.datasets.export import version_zip
from app.datasets.manifest import read_manifest
from app.datasets.schemas import LineageModel, LineageOut, LineageVersion, VersionOut
from app.registry import service as registry

router = APIRouter(tags=["datasets"], route_class=Route)

_VERSIONS = "/v1/datasets/{dataset_id}/versions"
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


@router.post(
    _VERSIONS,
    status_code=201,
    response_model=VersionOut,
    responses={200: {"model": VersionOut, "description": "Nothing has changed"}, **problems(404, 409, 422)},
    summary="Create a version",
)
def cut_version(dataset_id: str, writer: Writer, services: ServicesDep) -> Any:
    """Freeze the dataset as it is now; jobs train on the newest version. The same content has the same `sha256`. If
    nothing has changed since the newest version, the response is that version, with a 200."""
    with services.database.reading() as session:
        dataset = dataset_images.check_ready(datasets.get(session, writer.workspace_id, dataset_id))
        manifest, _ = dataset_images.current_manifest(session, dataset)
    services.store.put_bytes(manifest)  # before the row that names it
    with services.database.writing() as session:
        dataset = dataset_images.check_ready(datasets.get(session, writer.workspace_id, dataset_id, lock=True))
        version, is_new = dataset_images.freeze(session, dataset, manifest)
        view = VersionOut.model_validate(version).model_dump(mode="json")
        location = f"/v1/datasets/{dataset.id}/versions/{version.number}"
    return JSONResponse(view, status_code=201 if is_new else 200, headers={"Location": location})


@router.get(_VERSIONS, responses=problems(404), summary="List versions")
def list_versions(dataset_id: str, reader: Reader, session: ReadSession) -> ListOut[VersionOut]:
    """List all versions of a dataset, newest first."""
    dataset = datasets.get(session, reader.workspace_id, dataset_id)
    return ListOut(items=[VersionOut.model_validate(one) for one in dataset_images.list_versions(session, dataset)])


@router.get(_VERSIONS + "/{number}", responses=problems(404, 422), summary="Get a version")
def get_version(dataset_id: str, number: Number, reader: Reader, session: ReadSession) -> VersionOut:
    dataset = datasets.get(session, reader.workspace_id, dataset_id)
    return VersionOut.model_validate(dataset_images.get_version(session, dataset, number))


@router.get(
    _VERSIONS + "/{number}/archive",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
            "description": "A zip",
        },
        **problems(404, 422),
    },
    summary="Download a version",
)
def download_version(dataset_id: str, number: Number, reader: Reader, services: ServicesDep) -> StreamingResponse:
    """Download a zip of class folders below split folders, and `labels.jsonl`. Uploading it gives the same version
    hash."""
    with services.database.reading() as session:
        dataset = datasets.get(session, reader.workspace_id, dataset_id)
        version = dataset_images.get_version(session, dataset, number)
    manifest = read_manifest(services.store.read(version.manifest_sha256))
    name = f"{dataset.name}-v{number}.zip".replace(" ", "_")
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "ETag": f'"{version.manifest_sha256}"'}
    return StreamingResponse(version_zip(manifest, services.store), media_type="application/zip", headers=headers)


@router.get("/v1/images/{sha256}/lineage", responses=problems(404, 422), summary="Find where an image was used")
def get_lineage(sha256: Sha256, reader: Reader, session: ReadSession) -> LineageOut:
    """List the versions that hold the image, also those of deleted datasets, and the models trained on them."""
    found = dataset_images.versions_with(session, reader.workspace_id, sha256)
    if not found:
        raise NotFound(
            f"No version in this workspace holds an image {sha256}. GET /v1/datasets/{{id}}/images lists images."
        )
    models = registry.trained_on(session, reader.workspace_id, [version.id for _, version in found])
    return LineageOut(
        sha256=sha256,
        versions=[
            LineageVersion(
                dataset_id=dataset.id,
                dataset=dataset.name,
                deleted=dataset.deleted_at is not None,
                version_id=version.id,
                number=version.number,
                sha256=version.manifest_sha256,
            )
            for dataset, version in found
        ],
        models=[LineageModel(id=one.id, name=one.name, version_id=one.dataset_version_id) for one in models],
    )
