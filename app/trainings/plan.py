"""Plan a training: what would become of it if it were queued now. Writes nothing."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.clock import DatabaseTime
from app.core.settings import Settings
from app.datasets import images as dataset_images
from app.datasets import service as datasets
from app.datasets.manifest import Manifest, read_manifest
from app.datasets.orm import Dataset, DatasetImage, DatasetVersion
from app.datasets.ready import ready_dataset
from app.datasets.report import report_on
from app.datasets.schemas import Finding, Severity
from app.jobs import admission, workers
from app.jobs.orm import Job, RegisteredWorker
from app.jobs.states import HELD, JobState
from app.jobs.waiting import PlannedJob, queue_places
from app.registry.mislabels import likely_mislabels
from app.storage import BlobStore
from app.trainings.plan_schemas import Estimate, PlannedImages, PlannedLimits, PlannedNetwork, PlanOut, Refusal
from app.trainings.schemas import TrainRequest
from app.trainings.service import StartingModel, spec_of
from app.trainings.type import TRAIN
from app.vision.settings.config import TrainConfig, filled_in
from app.vision.training import estimate

_RECENT = 100  # ended trainings among which like ones are looked for


def plan(
    session: Session,
    store: BlobStore,
    workspace_id: UUID,
    request: TrainRequest,
    config: TrainConfig,
    settings: Settings,
    start: StartingModel | None = None,
) -> PlanOut:
    """Return the plan of a request whose `config` is resolved.

    Raises what `service.submit` raises for its dataset.
    """
    processes, machines = request.resources.processes, request.resources.machines
    admission.check_machines(session, machines)
    dataset, version = ready_dataset(session, workspace_id, request.dataset)
    images = dataset_images.all_images(session, dataset)
    doubts = likely_mislabels(session, store, workspace_id, dataset, images)
    report = report_on(images, dataset.report or {}, doubts)
    totals = {split: sum(found.values()) for split, found in version.counts.items()}
    queued = admission.count(session, workspace_id, TRAIN, [JobState.queued])
    refusal = admission.queue_refusal(queued, TRAIN, settings.max_queued_jobs)
    spec = spec_of(request, config, dataset, start).model_dump(mode="json", exclude_unset=True)
    planned = PlannedJob(
        TRAIN.name,
        workspace_id,
        dataset.id,
        spec,
        request.priority,
        _is_due(session, request),
        machines,
    )
    stands = queue_places(session, TRAIN.slot, settings.max_running_jobs, planned)[None]
    return PlanOut(
        dataset_id=dataset.id,
        spec=spec,
        network=_network(config, version),
        images=PlannedImages(version_id=version.id, version=version.number, total=totals, counts=version.counts),
        findings=[
            *_unfrozen_changes(images, read_manifest(store.read(version.manifest_sha256)), dataset),
            *(one for one in report.findings if one.severity is not Severity.info),
        ],
        memory=_memory(session, config, len(version.classes), processes * machines),
        disk=_disk(config, len(version.classes), totals),
        seconds=_seconds(session, config, totals, machines),
        limits=PlannedLimits(
            queued=queued,
            max_queued=settings.max_queued_jobs,
            running=admission.count(session, workspace_id, TRAIN, list(HELD)),
            max_running=settings.max_running_jobs,
            stored_bytes=datasets.stored_bytes(session, workspace_id),
            max_stored_bytes=settings.max_workspace_bytes,
        ),
        refusal=None if refusal is None else Refusal(code=refusal.code, detail=refusal.detail),
        waiting_for=stands.waiting_for,
        jobs_ahead=None if stands.place is None else stands.place - 1,
        wait_seconds=stands.seconds,
    )


def _unfrozen_changes(images: Sequence[DatasetImage], manifest: Manifest, dataset: Dataset) -> Iterable[Finding]:
    """Yield a finding where the dataset is not what its newest version holds: the training sees no changes."""
    frozen = {(item.sha256, item.label, item.split) for item in manifest.items}
    now = {(image.sha256, image.label, image.split) for image in images}
    if changed := sorted({sha256 for sha256, _, _ in frozen ^ now}):
        yield Finding(
            code="not_in_version",
            severity=Severity.warning,
            message=f"{len(changed)} images were added, changed or taken out since the newest version was cut, which "
            "is what is trained on.",
            remedy=f"POST /v1/datasets/{dataset.id}/versions, and train after that.",
            count=len(changed),
            images=changed[:200],
        )


def _is_due(session: Session, request: TrainRequest) -> bool:
    now = session.execute(select(DatabaseTime())).scalar_one()
    return request.run_after is None or request.run_after <= now


def _network(config: TrainConfig, version: DatasetVersion) -> PlannedNetwork:
    size = estimate.network_size(config, len(version.classes))
    return PlannedNetwork(
        backbone=config.backbone,
        input_size=filled_in(config.input_size),
        classes=version.classes,
        parameters=size.parameters,
        trainable_parameters=size.trainable,
        trained=["head", *size.learning],
    )


def _memory(session: Session, config: TrainConfig, classes: int, processes: int) -> Estimate:
    if not isinstance(config.batch_size, int):
        basis = "batch_size is auto: the worker takes as much of its free memory as a batch of up to 256 images needs."
        return Estimate(value=None, unit="bytes", basis=basis)
    parts = estimate.memory(config, classes, -(-config.batch_size // processes))
    basis = (
        "Counted from the network's parameters, what they need to learn, and the layers' outputs for one batch in "
        "float32; a GPU holds all but `runtime`."
    )
    free = [
        device["memory_free"]
        for row in session.scalars(_alive())
        for device in row.devices
        if device.get("memory_free") is not None
    ]
    if free:
        basis += f" The roomiest device of the living workers has {max(free)} bytes free."
    return Estimate(value=sum(parts.values()), unit="bytes", parts=parts, basis=basis)


def _disk(config: TrainConfig, classes: int, totals: Mapping[str, int]) -> Estimate:
    parts = estimate.disk(config, classes, totals)
    basis = (
        "Counted: decoded pixels and features in the worker's cache, less what it holds of them already; the last "
        "checkpoints, until the job has ended; the model."
    )
    return Estimate(value=sum(parts.values()), unit="bytes", parts=parts, basis=basis)


def _seconds(session: Session, config: TrainConfig, totals: Mapping[str, int], machines: int) -> Estimate:
    """Estimate from the median time an image took in like trainings that succeeded of late, on workers that live."""
    hosts = {row.host for row in session.scalars(_alive())}
    query = (
        select(Job.ran_seconds, Job.spec, Job.worker, DatasetVersion.counts)
        .join(DatasetVersion, DatasetVersion.id == Job.dataset_version_id)
        .where(Job.kind == TRAIN.name, Job.state == JobState.succeeded)
        .where(Job.spec["backbone"].as_string() == config.backbone, Job.spec["train"].as_string() == config.train)
        .where(workers.needed() == machines)
        .order_by(Job.id.desc())
        .limit(_RECENT)
    )
    like = ("last_stages", "input_size")
    rates = [
        row.ran_seconds / _passes(row.spec, {split: sum(found.values()) for split, found in row.counts.items()})
        for row in session.execute(query)
        if (row.worker or "").rpartition(":")[0] in hosts
        and all(row.spec.get(name) == getattr(config, name) for name in like)
    ]
    if not rates:
        basis = "No training with this backbone, input size and these stages has ended on a worker that is alive."
        return Estimate(value=None, unit="seconds", basis=basis)
    seconds = statistics.median(rates) * _passes(config.to_dict(), totals)
    basis = (
        f"The median time an image took in earlier trainings ({len(rates)}) with this backbone, input size and these "
        "stages, on workers of hosts that are alive, times images and epochs. A cache that is warm, or patience, makes "
        "it less."
    )
    return Estimate(value=round(seconds, 1), unit="seconds", basis=basis)


def _passes(spec: Mapping[str, Any], totals: Mapping[str, int]) -> int:
    """Return how many images go through the trunk, once a view where it is frozen; the head takes no time beside it."""
    learning, held_out = totals.get("train", 0), sum(totals.values()) - totals.get("train", 0)
    if spec["train"] == "head":
        views = 1 if spec["augmentation"] == "none" else spec.get("views", 4)
        return max(learning * views + held_out, 1)
    epochs: int = spec["epochs"]
    return max(epochs * (learning + totals.get("val", 0)) + held_out, 1)


def _alive() -> Any:
    return select(RegisteredWorker).where(RegisteredWorker.expires_at > DatabaseTime())
