"""Rows for tests, made by the services themselves: a workspace, datasets, jobs and the claims on them, models."""

import hashlib
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.auth.orm import Workspace
from app.auth.service import ensure_workspace
from app.core.clock import DatabaseTime
from app.datasets import service as datasets
from app.datasets.ingestion import Ingested
from app.datasets.orm import Dataset
from app.datasets.schemas import SplitOptions
from app.datasets.service import Upload
from app.ingestions import service as ingestions
from app.jobs import claiming, queue, workers
from app.jobs import service as jobs
from app.jobs.doorbell import Doorbell
from app.jobs.orm import Job
from app.jobs.queue import Claim
from app.jobs.states import JobState
from app.jobs.types import Resource
from app.jobs.waiting import QueuePlace, queue_places
from app.registry import service as registry
from app.registry.orm import Model
from app.storage import Blob
from app.trainings import service as trainings
from app.trainings.schemas import TrainRequest
from app.vision.settings.config import TrainConfig
from app.work import JOB_TYPES  # noqa: F401  (the queue asks what kinds there are)

FAILURE = {"reason": "internal", "detail": "It broke.", "hint": "Mend it."}
PROBLEM = {"reason": "storage_full", "detail": "No room.", "hint": "Make some."}
EXPIRED = -1.0  # seconds of a lease that has run out when it is taken
TRAINED = {"classes": ["ants", "bees"], "preprocessing": {"size": 64}, "metrics": {"val": {"accuracy": 0.75}}}


class SilentDoorbell:
    """For workers that look by themselves."""

    def ring(self, kind: str) -> None:
        pass


def sha(text: str) -> str:
    """A hash, by a name of the test's own."""
    return hashlib.sha256(text.encode()).hexdigest()


def workspace(session: Session, name: str = "default") -> Workspace:
    return ensure_workspace(session, name)


def upload(content: str = "archive") -> Upload:
    return Upload(Blob(sha(content), len(content)), "zip", "pets.zip")


def new_dataset(session: Session, name: str = "pets", workspace_id: UUID | None = None) -> Dataset:
    """A dataset whose upload is still to be read."""
    workspace_id = workspace_id or workspace(session).id
    return datasets.create(session, workspace_id, name, upload(f"archive of {name}"))


def ingested(*images: str, manifest: str = "manifest") -> Ingested:
    """What reading an upload found: one 8 × 8 px picture of ants for each name."""
    rows = [
        {"sha256": sha(name), "name": name, "label": "ants", "split": "train", "width": 8, "height": 8, "size": 99}
        for name in images
    ]
    counts = {"train": {"ants": len(rows), "bees": 0}}
    return Ingested(sha(manifest), ["ants", "bees"], counts, rows, {"files": len(rows)})


def ready_dataset(session: Session, name: str = "pets", workspace_id: UUID | None = None) -> Dataset:
    dataset = new_dataset(session, name, workspace_id)
    datasets.fill(session, dataset.id, ingested(f"{name}/1.jpg", f"{name}/2.jpg", manifest=f"manifest of {name}"))
    return dataset


def ingestion(
    session: Session, dataset: Dataset | None = None, max_attempts: int = 3, doorbell: Doorbell | None = None
) -> Job:
    dataset = dataset or new_dataset(session)
    return ingestions.submit(session, doorbell or SilentDoorbell(), dataset, SplitOptions(), max_attempts)


def training(
    session: Session,
    dataset: Dataset | None = None,
    max_attempts: int = 3,
    doorbell: Doorbell | None = None,
    **asked: Any,
) -> Job:
    """A queued training, on a dataset named pets unless one is given."""
    if dataset is None:
        workspace_id = workspace(session).id
        dataset = session.scalar(select(Dataset).where(Dataset.workspace_id == workspace_id, Dataset.name == "pets"))
        dataset = dataset or ready_dataset(session)
    request = TrainRequest(dataset=str(dataset.id), **asked)
    config = TrainConfig("resnet18-tiny64").resolve()
    return trainings.submit(session, doorbell or SilentDoorbell(), dataset.workspace_id, request, config, max_attempts)


def prediction(session: Session, max_attempts: int = 3, **spec: Any) -> Job:
    """A queued job that predicts a dataset named pets; `spec` may name blobs that it needs."""
    workspace_id = workspace(session).id
    dataset = session.scalar(select(Dataset).where(Dataset.workspace_id == workspace_id, Dataset.name == "pets"))
    dataset = dataset or ready_dataset(session)
    version = datasets.latest_versions(session, [dataset.id])[dataset.id]
    job = Job(kind="predict", dataset_version_id=version.id, spec=spec, max_attempts=max_attempts)
    return jobs.enqueue(session, SilentDoorbell(), workspace_id, dataset.id, job)


def claimed(session: Session, kind: str = "train", lease_seconds: float = 60.0) -> Claim:
    """The claim on the oldest waiting job of that kind."""
    job = claiming.claim(session, [kind], "worker-1", lease_seconds)
    assert job is not None
    return Claim(job.id, job.epoch)


def model(session: Session, job: Job | None = None, artefact: str = "artefact") -> Model:
    """A model whose training has succeeded."""
    job = job or training(session)
    found = registry.record(session, job, Blob(sha(artefact), 1234), TRAINED)
    job.state = JobState.succeeded
    job.finished_at = DatabaseTime()  # type: ignore[assignment]
    session.flush()
    return found


def worker(session: Session, name: str = "host:1", train_slots: int = 1, lost_after: float = 60.0) -> UUID:
    """Return the id of a worker that is registered."""
    facts = {"host": "host", "version": "1", "devices": [], "train_slots": train_slots}
    return workers.register(session, name=name, lost_after=lost_after, **facts)  # type: ignore[arg-type]


def queued_trainings(session: Session, max_running: int = 64) -> dict[UUID, QueuePlace]:
    """Return what each training that waits is told."""
    return queue_places(session, Resource.gpu, max_running)


def took(session: Session, seconds: float) -> None:
    """Let a training like the others have taken so long."""
    job = training(session)
    held = claimed(session)
    queue.succeed(session, job, {})
    session.execute(update(Job).where(Job.id == held.job_id).values(ran_seconds=seconds))
