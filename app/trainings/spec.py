"""Schemas of a training's spec, of the metrics of its epochs, and of its result."""

from typing import TYPE_CHECKING, Any, get_type_hints
from uuid import UUID

from pydantic import ConfigDict, Field, create_model

from app.jobs.schemas import Metrics, Result, Spec
from app.registry.schemas import Ancestor
from app.trainings.augmentation import AugmentationStep
from app.trainings.schemas import Head, Resources, TrainRequest
from app.vision.settings.config import TrainConfig
from app.vision.settings.presets import PresetName

if TYPE_CHECKING:
    _Configured = Spec
else:
    # The fields of `TrainConfig` under their own names. Rows keep none that is null, and those of before have fewer.
    _TOLD = {name: field.description for name, field in TrainRequest.model_fields.items()}
    _HINTS = get_type_hints(TrainConfig) | {"augmentation": PresetName | list[AugmentationStep] | None}
    _Configured = create_model(
        "_Configured",
        __base__=Spec,
        **{
            name: (hint | None, Field(default=None, description=_TOLD.get(name)))
            for name, hint in _HINTS.items()
            if name not in ("backbone", "head")
        },
    )


class UsedHead(Head):
    """The head that is trained. It may have fields that only newer code knows."""

    model_config = ConfigDict(extra="allow")


class UsedResources(Resources):
    """The resources of the job. They may have fields that only newer code knows."""

    model_config = ConfigDict(extra="allow")


class TrainSpec(_Configured):
    """The request with every default filled in."""

    model_name: str = Field(description="Of the model to be.")
    backbone: str
    head: UsedHead = UsedHead()
    resources: UsedResources = UsedResources()
    lineage: list[Ancestor] = Field(default=[], description="The base model, its own and so on; empty: none.")


class TrainResult(Result):
    """`GET /v1/models/{model_id}` has the rest."""

    model_id: UUID
    best_epoch: int | None = None
    accuracy: dict[str, float] = Field(default={}, description="Of the model, by split.")
    rate_search: dict[str, Any] | None = Field(default=None, description="With `find_rate`: the rate and the curve.")
    notes: list[str] | None = Field(default=None, description="What was not done as asked for, and why.")


class EpochOut(Metrics):
    """Losses and metrics of one epoch. Losses are mean cross-entropy in nats; the others are 0 to 1."""

    epochs: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_macro_f1: float
    learning_rate: float
    images_per_s: float
    duration_s: float
