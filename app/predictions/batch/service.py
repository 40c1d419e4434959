"""Queue predict jobs with everything they need, and find their rows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.core.errors import Conflict, FieldError, Invalid, NotFound
from app.datasets import images as dataset_images
from app.datasets.orm import Dataset, DatasetVersion
from app.datasets.ready import ready_dataset
from app.jobs import service as jobs
from app.jobs.admission import check_queue
from app.jobs.doorbell import Doorbell
from app.jobs.orm import Job
from app.jobs.states import TERMINAL, JobState
from app.predictions.batch.schemas import PredictJobRequest, PredictSpec
from app.predictions.batch.type import PREDICT
from app.predictions.references import reference
from app.predictions.service import check_classes
from app.registry import service as registry
from app.storage import Blob


def image_list(wanted: Sequence[str], found: Mapping[str, str]) -> bytes:
    """Return a JSON line for each requested image, in order, with the SHA-256 of its bytes or null.

    Raises `Invalid` if none of the images exists.
    """
    if not found:
        detail = (
            f"None of these images is in the datasets here: {wanted[0]!r}, … GET /v1/datasets/ID/images lists them."
        )
        raise Invalid(detail, code="unknown_image", errors=[FieldError("images", detail, "unknown_image")])
    lines = [json.dumps({"id": one, "sha256": found.get(one)}) for one in wanted]
    return "".join(f"{line}\n" for line in lines).encode()


def submit(
    session: Session,
    doorbell: Doorbell,
    workspace_id: UUID,
    request: PredictJobRequest,
    listed: Blob | None,
    max_attempts: int,
    max_queued: int | None = None,
) -> Job:
    """Queue a predict job and return it. `listed` is the `image_list` in the store, for a request that names images.

    The model's bytes, the list and the version are kept until the job has ended, whatever is deleted meanwhile. Raises
    `Invalid` for a model, dataset or image that does not exist, `Conflict` for a dataset that is not ready, and
    `TooMany` if `max_queued` such jobs wait in the workspace.
    """
    # The model's row before the workspace's, as a training takes them: the other way round they wait for each other.
    model = registry.find_for_job(session, workspace_id, request.model, "model", lock=True)
    check_queue(session, workspace_id, PREDICT, max_queued)
    check_classes(request.classes, model.classes)
    dataset_id: UUID | None = None
    version_id: UUID | None = None
    if request.dataset is None:
        assert listed is not None
        asked: dict[str, Any] = {"images_sha256": listed.sha256, "images": len(request.images or [])}
    else:
        # Locked, so that it cannot be deleted between this look and the commit.
        dataset, newest = ready_dataset(session, workspace_id, request.dataset, lock=True)
        version = newest if request.version is None else _version(session, dataset, request.version)
        dataset_id, version_id = dataset.id, version.id
        asked = {"version": version.number, "split": request.split, "label": request.label}
        asked["images"] = _count(version, request)
    named: dict[str, Any] = {
        "model_id": str(model.id),
        "model_name": model.name,
        "backbone": model.backbone,
        "artefact_sha256": model.artefact_sha256,
    }
    if (thresholds := reference(model).thresholds) is not None:
        named["thresholds"] = list(thresholds)  # those of now: the model may be held to another target meanwhile
    options = request.model_dump(include={"top_k", "threshold", "classes", "probabilities", "engine"})
    return jobs.submit(
        session,
        doorbell,
        PREDICT,
        workspace_id,
        PredictSpec.model_validate(named | asked | options),
        max_attempts,
        asked=request,
        dataset_id=dataset_id,
        dataset_version_id=version_id,
    )


def _version(session: Session, dataset: Dataset, number: int) -> DatasetVersion:
    try:
        return dataset_images.get_version(session, dataset, number)
    except NotFound as error:
        field = FieldError("version", error.detail, "unknown_version")
        raise Invalid(error.detail, code="unknown_version", errors=[field]) from None


def _count(version: DatasetVersion, request: PredictJobRequest) -> int:
    """Return how many images of the version are selected. Raises `Invalid` if none is."""
    chosen = {split: found for split, found in version.counts.items() if request.split in (None, split)}
    if request.label is None:
        total = sum(sum(found.values()) for found in chosen.values())
    else:
        total = sum(found.get(request.label, 0) for found in chosen.values())
    if total == 0:
        field = "label" if request.label is not None else "split"
        there = {split: found for split, found in version.counts.items() if any(found.values())}
        detail = f"No image of version {version.number} is in this split and under this label. It has {there}."
        raise Invalid(detail, code="no_images", errors=[FieldError(field, detail, "no_images")])
    return total


def result_of(session: Session, workspace_id: UUID, job_id: UUID) -> tuple[Blob, Job]:
    """Return the blob of a job's rows, and the job. Raises `NotFound`, and `Conflict` if the job has no rows."""
    job = jobs.get(session, workspace_id, job_id)
    if job.kind != PREDICT.name:
        detail = f"Job {job_id} is of kind {job.kind} and has no predictions. POST /v1/jobs:predict makes one that has."
        raise Conflict(detail, code="no_predictions")
    if job.state is not JobState.succeeded:
        ended = job.state in TERMINAL
        what = "Submit it again." if ended else "Wait until its state is succeeded: GET /v1/jobs/{id}?wait=60."
        detail = f"Job {job_id} is {job.state} and has no result. {what}"
        raise Conflict(detail, code="not_succeeded", retry_after=None if ended else 2)
    assert job.result is not None
    return Blob(**job.result["file"]), job
