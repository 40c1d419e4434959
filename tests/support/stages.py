"""Bring a service to where a test begins: a workspace with keys, a dataset that is ready, a model. No worker."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from app.auth import service as auth
from app.auth.schemas import Scope
from app.core.database import Database
from app.core.ids import new_id
from app.core.settings import Settings
from app.datasets import service as datasets
from app.datasets.ingestion import ingest
from app.datasets.intake.intake import take_in_all
from app.datasets.intake.limits import archive_limits, intake_limits
from app.datasets.schemas import SplitOptions
from app.ingestions import service as ingestions
from app.jobs import claiming, queue
from app.jobs.orm import Job
from app.jobs.queue import Claim
from app.predictions.batch import service as batch
from app.predictions.batch.schemas import PredictJobRequest
from app.storage import BlobStore
from app.trainings import service as trainings
from app.trainings.schemas import TrainRequest
from app.trainings.weights import configured_weights
from app.vision.backbones.weights import BUNDLED
from app.vision.data.samples import Sample
from app.vision.settings.config import TrainConfig
from app.vision.training.result import FitResult
from tests.support.factories import SilentDoorbell
from tests.support.images import folder_zip, photo, png

TINY = {"backbone": "resnet18-tiny64", "input_size": 32, "epochs": 2, "batch_size": 8}


# What stands in for the pictures and tables of a model that no worker made.
ROW = {
    **{"image": "00", "split": "val", "true": 'an "ant", or two', "predicted": "bees", "probability": 0.75},
    **{"true_probability": 0.25, "top": [{"class": "bees", "probability": 0.75}]},
}
FILES = {"curves.png": png(photo(0, 0)), "evaluations-val.jsonl": json.dumps(ROW).encode() + b"\n"}


class Silent:
    """An observer of training that never asks it to stop."""

    def progress(self, phase: str, fraction: float, eta_s: float | None) -> None: ...
    def epoch(self, metrics: dict[str, Any]) -> None: ...
    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None: ...
    def should_stop(self) -> bool:
        return False


def train_tiny(folder: Path, classes: Sequence[str]) -> FitResult:
    """A small model that tells such textures apart; `folder` gets its files."""
    from app.vision.training.fit import fit  # imports torch, which few need

    samples = []
    for label, name in enumerate(classes):
        for number in range(12):
            path = folder / f"{name}-{number}.png"
            photo(label, number).save(path)
            samples.append(Sample(path, label, "train" if number < 8 else "val"))
    config = TrainConfig(**TINY)  # type: ignore[arg-type]
    weights = BUNDLED / "resnet18-tiny64.safetensors"
    return fit(config, samples, classes, weights=weights, workdir=folder, observer=Silent())


@dataclass(frozen=True)
class Workspace:
    """A workspace and the secret of one key for each scope."""

    id: UUID
    secrets: dict[Scope, str]


@dataclass(frozen=True)
class Stage:
    """The parts of one service, as its API and its worker hold them."""

    settings: Settings
    database: Database
    store: BlobStore

    def workspace(self, name: str | None = None) -> Workspace:
        with self.database.writing() as session:
            workspace = auth.ensure_workspace(session, name or f"workspace-{new_id()}")
            secrets = {scope: auth.create_key(session, workspace.id, scope.value, [scope])[1] for scope in Scope}
            return Workspace(workspace.id, secrets)

    def upload(self, workspace: Workspace, name: str, archive: bytes | None = None) -> UUID:
        """A dataset that waits to be read."""
        archive = archive or folder_zip({"ants": 8, "bees": 8}, split={"train": 8, "val": 4})
        upload = datasets.Upload(self.store.put_bytes(archive), "zip", None)
        with self.database.writing() as session:
            dataset = datasets.create(session, workspace.id, name, upload)
            ingestions.submit(session, SilentDoorbell(), dataset, SplitOptions(), self.settings.max_attempts)
            return dataset.id

    def dataset(self, workspace: Workspace, name: str, archive: bytes | None = None) -> UUID:
        """A dataset that is ready."""
        dataset_id = self.upload(workspace, name, archive)
        self.read_uploads()
        return dataset_id

    def read_uploads(self) -> None:
        """Do what a worker does with the uploads that wait."""
        while (job := self.claim("ingest")) is not None:
            ingested = ingest(
                self.store.fetch(job.spec["archive_sha256"], self.settings.scratch),
                self.store,
                val_fraction=0.2,
                test_fraction=0.0,
                seed=0,
                archive_limits=archive_limits(self.settings),
                take_in=partial(take_in_all, limits=intake_limits(self.settings)),
                progress=lambda _: None,
            )
            with self.database.writing() as session:
                queue.finish(session, Claim(job.id, job.epoch), ingested.to_dict())

    def job(self, workspace: Workspace, dataset: str, **fields: Any) -> UUID:
        """A training that waits."""
        request = TrainRequest.model_validate({"dataset": dataset, **TINY, **fields})
        with self.database.reading() as session:
            start = trainings.starting_model(session, workspace.id, request)
        config = trainings.resolve(request, configured_weights(self.settings), start)
        with self.database.writing() as session:
            job = trainings.submit(
                session, SilentDoorbell(), workspace.id, request, config, self.settings.max_attempts, start=start
            )
            return job.id

    def predictions(self, workspace: Workspace, **fields: Any) -> UUID:
        """A job that predicts and waits."""
        request = PredictJobRequest.model_validate(fields)
        with self.database.writing() as session:
            listed = None
            if request.images is not None:
                found = datasets.find_images(session, workspace.id, request.images)
                listed = self.store.put_bytes(batch.image_list(request.images, found))
            attempts = self.settings.max_attempts
            return batch.submit(session, SilentDoorbell(), workspace.id, request, listed, attempts).id

    def claim(self, kind: str, lease_seconds: float = 600.0) -> Job | None:
        with self.database.writing() as session:
            return claiming.claim(session, [kind], "test", lease_seconds)

    def finish(self, job: Job, trained: FitResult, classes: Sequence[str]) -> UUID:
        """End a claimed training with that model; gives the model's id."""
        artefact = self.store.put_file(trained.model_path)
        body = {
            "artefact": {"sha256": artefact.sha256, "size": artefact.size},
            "preprocessing": trained.preprocessing.to_dict(),
            "metrics": trained.metrics,
            "best_epoch": trained.best_epoch,
            **trained.recorded,
            "classes": list(classes),
            "files": {
                name: {"sha256": blob.sha256, "size": blob.size}
                for name, data in FILES.items()
                for blob in [self.store.put_bytes(data)]
            },
        }
        with self.database.writing() as session:
            queue.finish(session, Claim(job.id, job.epoch), body)
        with self.database.reading() as session:
            result = session.get_one(Job, job.id).result
        assert result is not None
        return UUID(result["model_id"])
