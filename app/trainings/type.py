"""The kind of job that trains a model, as the queue and the workers know it."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy.orm import Session

from app.jobs.orm import Job
from app.jobs.types import JobType, Resource
from app.registry import service as registry
from app.storage import Blob
from app.trainings.spec import EpochOut, TrainResult, TrainSpec


def _record_model(session: Session, job: Job, body: dict[str, Any]) -> TrainResult:
    """Write down the model that `body` (of `worker.kinds.train.train`) describes."""
    model = registry.record(session, job, Blob(**body["artefact"]), body)
    accuracy = {split: metrics["accuracy"] for split, metrics in body["metrics"].items()}
    found = {"model_id": model.id, "best_epoch": body["best_epoch"], "accuracy": accuracy}
    said = {name: body[name] for name in ("rate_search", "notes") if body.get(name)}
    return TrainResult.model_validate(found | said)


def _base_model(spec: Mapping[str, Any]) -> Iterable[str]:
    """Return the artefact that the training starts from: it must not go although its model may be deleted."""
    return [spec["base_model"]] if spec.get("base_model") else []


TRAIN = JobType(
    name="train",
    noun="trainings",
    slot=Resource.gpu,
    spec=TrainSpec,
    result=TrainResult,
    run="worker.kinds.train:train",
    finish=_record_model,
    spec_blobs=_base_model,
    metrics=EpochOut,
    warm=True,
    shared=True,
    offers_checkpoint=True,
    alike=("backbone", "train"),
)
