"""A child's work on a training job: fetch the images, fine-tune, hand over the model."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from app.core.logging import log
from app.core.settings import Settings
from app.datasets.manifest import Manifest, read_manifest
from app.jobs.states import FailureReason
from app.storage import BlobDamaged, BlobMissing, BlobStore
from app.storage.configured import configured_store
from app.trainings.spec import TrainSpec
from app.trainings.weights import configured_weights
from app.vision.artefacts.tables import json_lines
from app.vision.errors import (
    DamagedArtefact,
    Diverged,
    InvalidConfig,
    InvalidData,
    OutOfMemory,
    RankLost,
    Stopped,
    VisionError,
    WeightsUnavailable,
)
from app.vision.settings.config import TrainConfig
from app.vision.training.fit import fit
from app.vision.training.pictures import write_pictures
from app.vision.training.result import FitResult
from worker.child.parent import JobFailure, Parent, Setback, StopRequested, read_spec
from worker.machines.inputs import cache_of, samples_of
from worker.machines.ranks import sharing
from worker.processes.messages import Work

_FIELDS = frozenset(field.name for field in fields(TrainConfig))

_REASONS: dict[type[VisionError], tuple[FailureReason, str]] = {
    InvalidData: (FailureReason.invalid_data, "Look at the dataset's report, mend the images, and upload them again."),
    InvalidConfig: (FailureReason.invalid_config, "Change that field and submit the job again."),
    WeightsUnavailable: (FailureReason.weights_unavailable, "Put the file into GRAFT_WEIGHTS_DIR on every worker."),
    Diverged: (
        FailureReason.diverged,
        "Lower learning_rate, for example to a tenth, and train again, or go on from `checkpoint` at a lower rate.",
    ),
    OutOfMemory: (FailureReason.out_of_memory, "Lower batch_size or input_size, or take a smaller backbone."),
}


class _Observer:
    """Passes what the training library reports to the parent; a checkpoint's bytes go into the blob store first."""

    def __init__(self, parent: Parent, store: BlobStore) -> None:
        self._parent = parent
        self._store = store
        self.progress = parent.progress
        self.epoch = parent.epoch
        self.should_stop = parent.should_stop

    def checkpoint(self, path: Path, epoch: int, step: int, best: bool) -> None:
        self._parent.checkpoint(self._store.put_file(path), epoch, step, best)


def train(work: Work, parent: Parent, settings: Settings) -> dict[str, Any]:
    """Return the model's row to be: where its bytes are, its classes, preprocessing and metrics.

    Returns nothing where another machine leads: that one has the model.
    """
    parent.progress("weights", 0.0, None)  # at once: a long manifest takes its time
    store = configured_store(settings)
    scratch = Path(work["scratch"])
    assert work["manifest_sha256"] is not None
    manifest = read_manifest(store.read(work["manifest_sha256"]))
    spec = read_spec(TrainSpec, work["spec"])
    processes = spec.resources.processes
    try:
        config = TrainConfig.from_dict({name: value for name, value in work["spec"].items() if name in _FIELDS})
        made = _fit(config, manifest, work, store, scratch, parent, settings, processes)
        return made | {"notes": [*made["notes"], *_left_out(spec)]} if made else made
    except Stopped:
        raise StopRequested from None
    except RankLost as error:
        hint = "Look at the logs of the workers that shared the job, and at the network between them."
        raise Setback(FailureReason.worker_lost, str(error), hint) from error
    except VisionError as error:
        reason, hint = _REASONS.get(type(error), (FailureReason.internal, "The worker's log has the details."))
        if isinstance(error, OutOfMemory) and error.fits is not None:
            hint = (
                f"Set batch_size to {error.fits} and raise accumulate as much; or set on_out_of_memory to"
                ' "shrink", which comes to the same.'
            )
        raise JobFailure(reason, str(error), hint) from error


def _left_out(spec: TrainSpec) -> list[str]:
    """Return a note for each field that newer code asked for and this worker knows nothing of."""
    why = "was left out: this worker is older than the service that queued the job"
    return [f"{name} {value!r} {why}." for name, value in (spec.model_extra or {}).items()]


def _fetch_base(config: TrainConfig, store: BlobStore, scratch: Path) -> Path:
    assert config.base_model is not None
    try:
        return store.fetch(config.base_model, scratch)
    except (BlobMissing, BlobDamaged) as error:
        hint = "Start from another model, or leave base_model out and start from published weights."
        raise JobFailure(FailureReason.weights_unavailable, f"The base model: {error.detail}", hint) from None


def _fit(
    config: TrainConfig,
    manifest: Manifest,
    work: Work,
    store: BlobStore,
    scratch: Path,
    parent: Parent,
    settings: Settings,
    processes: int,
) -> dict[str, Any]:
    """Train from the newest checkpoint that is whole, or from the start."""
    samples = samples_of(manifest)
    images = scratch / "images"
    images.mkdir(parents=True, exist_ok=True)
    weights = configured_weights(settings) if config.base_model is None else _fetch_base(config, store, scratch)
    base = weights if isinstance(weights, Path) else None
    place = work.get("place")
    for sha256 in [*work["checkpoints"], None]:
        try:
            resume = store.fetch(sha256, scratch) if sha256 else None
            with sharing(processes, place, parent, config, work["manifest_sha256"] or "", base, scratch):
                result = fit(
                    config,
                    samples,
                    manifest.classes,
                    weights=weights,
                    workdir=scratch,
                    observer=_Observer(parent, store),
                    resume=resume,
                    cache=cache_of(settings),
                    fetch=lambda sample: store.fetch(sample.sha256, images),
                    task=work["spec"].get("task"),
                )
        except (DamagedArtefact, BlobMissing, BlobDamaged) as error:
            if sha256 is None:
                raise
            log.warning("checkpoint_damaged", sha256=sha256, error=str(error))
            continue
        if place is not None and place["number"] > 0:
            return {}
        artefact = store.put_file(result.model_path)
        return {
            "artefact": {"sha256": artefact.sha256, "size": artefact.size},
            "preprocessing": result.preprocessing.to_dict(),
            "metrics": result.metrics,
            "best_epoch": result.best_epoch,
            "rate_search": result.rate_search.to_dict() if result.rate_search else None,
            "files": _report_files(result, scratch, store),
            "notes": list(result.notes),
            **result.recorded,
        }
    raise AssertionError("unreachable: the last attempt is without a checkpoint")


def _report_files(result: FitResult, scratch: Path, store: BlobStore) -> dict[str, dict[str, Any]]:
    """Put the pictures and tables of the run into the store, and return their blobs by name."""
    folder = scratch / "report"
    folder.mkdir(exist_ok=True)
    paths = write_pictures(folder, result.pictures)
    for name, table in result.tables.items():
        path = folder / f"{name}.jsonl"
        with path.open("wb") as file:
            file.writelines(json_lines(table.rows()))
        paths.append(path)
    blobs = {path.name: store.put_file(path) for path in paths}
    return {name: {"sha256": blob.sha256, "size": blob.size} for name, blob in blobs.items()}
