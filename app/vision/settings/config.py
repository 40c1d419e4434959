"""The configuration of a training run: its fields with defaults filled in, checked, and as JSON."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from app.vision.backbones.catalogue import Backbone, get_backbone
from app.vision.errors import InvalidConfig, UnknownBackbone
from app.vision.settings.bounds import check
from app.vision.settings.fields import (
    Augmentation,
    HeadConfig,
    Imbalance,
    OnOutOfMemory,
    OptimizerName,
    Pooling,
    Precision,
    Schedule,
    Train,
    TrainFields,
)
from app.vision.settings.hyper_parameter import hyper_parameters, value_of
from app.vision.settings.presets import Transform, preset_of

__all__ = [
    "Augmentation",
    "HeadConfig",
    "Imbalance",
    "OnOutOfMemory",
    "OptimizerName",
    "Pooling",
    "Precision",
    "Schedule",
    "Train",
    "TrainConfig",
    "batch_size_of",
    "filled_in",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TrainConfig(TrainFields):
    """One training run. `resolve()` replaces every None with a default that suits `train` and the backbone."""

    def resolve(self) -> TrainConfig:
        """Return the same run with every None filled in; raise InvalidConfig naming the field that cannot stand."""
        backbone = self._check()
        defaults = {
            one.name: one.if_left_out.value(self)
            for one in hyper_parameters(type(self)).values()
            if one.if_left_out is not None and getattr(self, one.name) is None
        }
        resolved = replace(self, **defaults)
        resolved._check_together(backbone)
        return resolved

    def thawed_stages(self, backbone: Backbone) -> int:
        """Return how many of the trunk's stages learn in the end, counted from the head down."""
        return {"head": 0, "last_stages": self.last_stages, "all": backbone.stages}[self.train]

    def _check(self) -> Backbone:
        """Return the backbone, when each field has been looked at by itself."""
        known = hyper_parameters(type(self))
        check(known["backbone"], self.backbone)
        try:
            backbone = get_backbone(self.backbone)
        except UnknownBackbone as error:
            raise InvalidConfig("backbone", str(error)) from error
        for one in known.values():
            check(replace(one, at_most=backbone.stages) if one.name == "last_stages" else one, value_of(self, one.name))
        if isinstance(self.augmentation, tuple):
            preset_of(self.augmentation)
        if self.base_model is not None and not re.fullmatch("[0-9a-f]{64}", self.base_model):
            raise InvalidConfig("base_model", f"{self.base_model!r} is not the SHA-256 of a model file.")
        return backbone

    def _check_together(self, backbone: Backbone) -> None:
        """Raise InvalidConfig where fields that are good alone contradict each other."""
        if self.find_rate and self.learning_rate is not None:
            raise InvalidConfig("find_rate", f"and learning_rate {self.learning_rate!r}: leave one of them out.")
        if self.cutmix and self.train == "head":
            raise InvalidConfig(
                "cutmix",
                f"{self.cutmix!r} with a frozen trunk, whose features are computed once; use mixup, or let stages"
                " learn.",
            )
        if self.find_rate and self.batch_size == "auto":
            raise InvalidConfig("batch_size", "'auto' with find_rate, which tries rates at one size; name a number.")
        stages, epochs = self.thawed_stages(backbone), filled_in(self.epochs)
        if self.unfreeze_every and not stages:
            raise InvalidConfig(
                "unfreeze_every",
                f'{self.unfreeze_every} with train "head", which thaws nothing; use 0, or let stages learn.',
            )
        if self.unfreeze_every * stages >= epochs:
            needed = self.unfreeze_every * stages + 1
            raise InvalidConfig(
                "unfreeze_every",
                f"{self.unfreeze_every}: the last of {stages} stages would thaw in epoch {needed} of {epochs};"
                f" use at most {(epochs - 1) // stages}, or epochs {needed} and more.",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON that `from_dict` reads back to an equal configuration."""
        data = asdict(self)
        data["head"]["hidden"] = list(self.head.hidden)
        if isinstance(self.augmentation, tuple):
            data["augmentation"] = [transform.to_dict() for transform in self.augmentation]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainConfig:
        """Return the configuration that `to_dict` wrote; unknown fields raise InvalidConfig."""
        known = {item.name for item in fields(cls)}
        if stray := sorted(set(data) - known):
            raise InvalidConfig(stray[0], f"no such field; there are {', '.join(sorted(known))}.")
        if "backbone" not in data:
            raise InvalidConfig("backbone", "missing; name one of the known backbones.")
        values = dict(data)
        head = values.pop("head", None) or {}
        inside = {item.name for item in fields(HeadConfig)}
        if stray := sorted(set(head) - inside):
            raise InvalidConfig(f"head.{stray[0]}", f"no such field; there are {', '.join(sorted(inside))}.")
        if isinstance(values.get("augmentation"), list):
            values["augmentation"] = tuple(Transform.from_dict(entry) for entry in values["augmentation"])
        return cls(**values, head=HeadConfig(**{**head, "hidden": tuple(head.get("hidden", ()))}))


def filled_in(value: T | None) -> T:
    """Return a field of a configuration that `resolve()` has filled in; raise TypeError for None."""
    if value is None:
        raise TypeError("the configuration is not resolved: call resolve() first")
    return value


def batch_size_of(config: TrainConfig) -> int:
    """Return the batch size of a run that has found what "auto" comes to; raise TypeError for "auto"."""
    if not isinstance(config.batch_size, int):
        raise TypeError(f"batch_size is {config.batch_size!r}: a run settles it when it begins")
    return config.batch_size
