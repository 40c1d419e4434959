"""Write what a job made, in the transaction that ends it: a result exists exactly when its job succeeded."""

from typing import Any

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.ingestion import Ingested
from app.jobs import queue
from app.jobs.orm import Job
from app.jobs.queue import Claim
from app.jobs.states import JobKind, JobState
from app.registry import service as registry
from app.storage import Blob


def record_result(session: Session, held: Claim, body: dict[str, Any]) -> None:
    """End the job as succeeded, or as cancelled where that was asked for before the result came.

    Raises `ClaimLost` if the job is not this worker's any more.
    """
    job = queue.locked(session, held)
    if job.state is JobState.cancelling:
        queue.end(session, job, JobState.cancelled)
    elif job.kind is JobKind.ingest:
        queue.succeed(session, job, _fill_dataset(session, job, body))
    elif job.kind is JobKind.predict:
        queue.succeed(session, job, {"model_id": job.spec["model_id"], **body})
    else:
        queue.succeed(session, job, _record_model(session, job, body))


def _fill_dataset(session: Session, job: Job, body: dict[str, Any]) -> dict[str, Any]:
    assert job.dataset_id is not None
    version = datasets.fill(session, job.dataset_id, Ingested(**body))
    return {"dataset_version_id": str(version.id), "images": len(body["images"])}


def _record_model(session: Session, job: Job, body: dict[str, Any]) -> dict[str, Any]:
    model = registry.record(session, job, Blob(**body["artefact"]), body)
    accuracy = {split: metrics["accuracy"] for split, metrics in body["metrics"].items()}
    result = {"model_id": str(model.id), "best_epoch": body["best_epoch"], "accuracy": accuracy}
    if body.get("rate_search"):
        result["rate_search"] = body["rate_search"]
    if body.get("notes"):  # what was not done as asked for, and why
        result["notes"] = body["notes"]
    return result
