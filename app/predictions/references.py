"""Define the part of a model's row that is needed to answer calls."""

from dataclasses import dataclass
from uuid import UUID

from app.registry.orm import Model
from app.vision.engines.names import EngineName


@dataclass(frozen=True, slots=True)
class ModelReference:
    """The part of a model's row that is needed to answer. A pinned model is never unloaded.

    `engine` is the one that the caller insists on; None means the best one. `thresholds` are the least probabilities at
    which each class is accepted, None for a model without a target precision.
    """

    model_id: UUID
    artefact_sha256: str
    artefact_size: int = 0
    pinned: bool = False
    engine: EngineName | None = None
    thresholds: tuple[float | None, ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.artefact_sha256}/{self.engine or 'best'}"


COLUMNS = (Model.artefact_sha256, Model.artefact_size, Model.pinned, Model.classes, Model.decisions)


def reference(model: Model) -> ModelReference:
    thresholds = None
    if model.decisions is not None:
        thresholds = tuple(model.decisions["thresholds"][label] for label in model.classes)
    return ModelReference(model.id, model.artefact_sha256, model.artefact_size, model.pinned, thresholds=thresholds)
