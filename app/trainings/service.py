"""Trainings: what is asked for is resolved, checked and queued."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.core.errors import FieldError, Invalid
from app.datasets.orm import Dataset
from app.datasets.ready import ready_dataset
from app.jobs import service as jobs
from app.jobs.admission import check_machines, check_queue
from app.jobs.doorbell import Doorbell
from app.jobs.orm import Job
from app.registry import service as registry
from app.registry.orm import Model
from app.trainings.schemas import TrainRequest
from app.trainings.spec import TrainSpec
from app.trainings.type import TRAIN
from app.vision.backbones.catalogue import get_backbone
from app.vision.backbones.weights import WeightStore, default_backbone
from app.vision.errors import InvalidConfig, UnknownBackbone, VisionError
from app.vision.images.preprocessing import Preprocessing
from app.vision.settings.config import HeadConfig, TrainConfig


@dataclass(frozen=True, slots=True)
class StartingModel:
    """The model that a training starts from, and the head it was trained with."""

    model: Model
    head: HeadConfig

    def lineage(self) -> list[dict[str, Any]]:
        """Return an entry for each ancestor of a model that starts here, beginning with this model."""
        here = {
            "model_id": str(self.model.id),
            "name": self.model.name,
            "job_id": str(self.model.job_id),
            "dataset_version_id": str(self.model.dataset_version_id),
            "artefact_sha256": self.model.artefact_sha256,
        }
        return [here, *self.model.lineage]


def starting_model(session: Session, workspace_id: UUID, request: TrainRequest) -> StartingModel | None:
    """Return the model that the request starts from; None for one that starts from published weights.

    Raises `Invalid` for the field `base_model` where there is no such model.
    """
    if request.base_model is None:
        return None
    model = registry.find_for_job(session, workspace_id, request.base_model, "base_model")
    spec = model.training.get("spec")
    if spec is None:  # a model from before its training was written down with it
        job = session.get(Job, model.job_id)
        spec = job.spec if job else {}
    head = spec.get("head") or {}
    return StartingModel(model, HeadConfig(**{**head, "hidden": tuple(head.get("hidden", ()))}))


def resolve(request: TrainRequest, weights: WeightStore, start: StartingModel | None = None) -> TrainConfig:
    """Return the request with every default filled in, checked against the backbones and weights there are.

    What `start` was trained with takes the place of defaults. May ask the weights' server whether it has a file, so it
    is not to be called inside a transaction. Raises `Invalid` naming the field that cannot stand.
    """
    name = request.backbone
    if name == "auto":
        name = start.model.backbone if start else default_backbone(weights)
    try:
        config = _started_from(start, request, request.config(get_backbone(name).name)).resolve()
    except UnknownBackbone as error:
        raise _bad_field("backbone", error, code="unknown_backbone") from None
    except InvalidConfig as error:
        raise _bad_field(error.field, error) from None
    processes, machines = request.resources.processes, request.resources.machines
    if isinstance(config.batch_size, int) and config.batch_size < processes * machines:
        of_each = f" on each of {machines} machines" if machines > 1 else ""
        says = f"{processes}{of_each}: a batch of {config.batch_size} cannot be shared by so many; use at most that."
        raise _bad_field("resources.processes", InvalidConfig("resources.processes", says))
    backbone = get_backbone(name)
    if start is None and weights.status(backbone) == "missing":
        raise _bad_field(
            "backbone",
            weights.unavailable(backbone, "it is not on this server and cannot be downloaded"),
            code="weights_unavailable",
        )
    return config


def submit(
    session: Session,
    doorbell: Doorbell,
    workspace_id: UUID,
    request: TrainRequest,
    config: TrainConfig,
    max_attempts: int,
    max_queued: int | None = None,
    start: StartingModel | None = None,
) -> Job:
    """Queue a training on the dataset's newest version. `max_attempts` is for a request that names none.

    Raises `Invalid` where `start` was deleted meanwhile, and `TooMany` where `max_queued` trainings wait in the
    workspace.
    """
    if start is not None:  # from here on it cannot be deleted before the job says that it needs it
        registry.find_for_job(session, workspace_id, str(start.model.id), "base_model", lock=True)
    check_machines(session, request.resources.machines)
    check_queue(session, workspace_id, TRAIN, max_queued)
    # Locked, so that the dataset cannot be deleted between this look and the commit.
    dataset, version = ready_dataset(session, workspace_id, request.dataset, lock=True)
    return jobs.submit(
        session,
        doorbell,
        TRAIN,
        workspace_id,
        spec_of(request, config, dataset, start),
        max_attempts,
        asked=request,
        dataset_id=dataset.id,
        dataset_version_id=version.id,
    )


def spec_of(request: TrainRequest, config: TrainConfig, dataset: Dataset, start: StartingModel | None) -> TrainSpec:
    """Return what the job's row says of a training: the request with every default filled in."""
    filled = {name: value for name, value in config.to_dict().items() if value is not None}
    spec = {"model_name": request.model_name or dataset.name, "resources": request.resources.model_dump(), **filled}
    if start is not None:
        spec["lineage"] = start.lineage()
    return TrainSpec.model_validate(spec)


def _started_from(start: StartingModel | None, request: TrainRequest, config: TrainConfig) -> TrainConfig:
    """Raises InvalidConfig."""
    if start is None:
        return config
    model = start.model
    if config.backbone != model.backbone:
        raise InvalidConfig(
            "backbone", f"{config.backbone!r}, but the base model is a {model.backbone}; leave it out or use that."
        )
    asked = request.model_fields_set
    its_size = Preprocessing.from_dict(model.preprocessing).input_size
    return replace(
        config,
        base_model=model.artefact_sha256,
        head=config.head if "head" in asked else start.head,
        input_size=config.input_size if "input_size" in asked else its_size,
    )


def _bad_field(field: str, error: VisionError, code: str = "invalid") -> Invalid:
    return Invalid(str(error), code=code, errors=[FieldError(field, str(error), code)])
