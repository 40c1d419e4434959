"""What a training run is told: backbone, which layers learn, head, schedule; with defaults and checks."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from app.vision.backbones import get_backbone
from app.vision.errors import InvalidConfig, UnknownBackbone

Train = Literal["head", "last_stages", "all"]
OptimizerName = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "step", "cosine"]
Augmentation = Literal["none", "light", "standard", "strong"]

T = TypeVar("T")

MIN_INPUT_SIZE, MAX_INPUT_SIZE = 32, 1024
# A VGG halves its input five times; below this nothing is left to pool, and a ResNet sees too little anyway.


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The grafted head: linear, or ReLU layers of `hidden` units before it, `dropout` in front of each linear layer."""

    hidden: tuple[int, ...] = ()
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run. A None is replaced by `resolve()` with a default that suits `train` and the backbone.

    `learning_rate` is the peak after warm-up; `input_size` is the side of the square the network sees, in pixels;
    `last_stages` counts from the head down and is read only when `train` is "last_stages".
    """

    backbone: str
    train: Train = "head"
    last_stages: int = 1
    head: HeadConfig = field(default_factory=HeadConfig)
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    schedule: Schedule = "cosine"
    weight_decay: float | None = None
    augmentation: Augmentation | None = None
    input_size: int | None = None
    seed: int = 0

    def resolve(self) -> TrainConfig:
        """The same run with every None filled in; raises InvalidConfig naming the field that cannot stand."""
        self._check()
        frozen = self.train == "head"
        # Plain SGD takes about thirty times the step of Adam for the same progress.
        rates = {"sgd": 0.03 if frozen else 0.01, "adam": 2e-3 if frozen else 3e-4, "adamw": 2e-3 if frozen else 3e-4}
        decays = {"sgd": 1e-4, "adam": 0.0, "adamw": 1.0 if frozen else 0.05}
        return replace(
            self,
            epochs=_default(self.epochs, 40 if frozen else 12),
            batch_size=_default(self.batch_size, 32),
            learning_rate=_default(self.learning_rate, rates[self.optimizer]),
            weight_decay=_default(self.weight_decay, decays[self.optimizer]),
            augmentation=_default(self.augmentation, "none" if frozen else "light"),
            input_size=_default(self.input_size, get_backbone(self.backbone).input_size),
        )

    def _check(self) -> None:
        try:
            backbone = get_backbone(self.backbone)
        except UnknownBackbone as error:
            raise InvalidConfig("backbone", str(error)) from error
        _one_of("train", self.train, get_args(Train))
        _one_of("optimizer", self.optimizer, get_args(OptimizerName))
        _one_of("schedule", self.schedule, get_args(Schedule))
        if self.augmentation is not None:
            _one_of("augmentation", self.augmentation, get_args(Augmentation))
        _whole("last_stages", self.last_stages, 1, backbone.stages)
        _whole("epochs", self.epochs, 1, 10_000)
        _whole("batch_size", self.batch_size, 1, 4096)
        _whole("input_size", self.input_size, MIN_INPUT_SIZE, MAX_INPUT_SIZE)
        _whole("seed", self.seed, 0, 2**32 - 1)
        _real("learning_rate", self.learning_rate, above=0.0, up_to=10.0)
        _real("weight_decay", self.weight_decay, at_least=0.0, up_to=100.0)
        _real("head.dropout", self.head.dropout, at_least=0.0, up_to=0.95)
        if len(self.head.hidden) > 4:
            raise InvalidConfig("head.hidden", f"{len(self.head.hidden)} layers; use at most 4.")
        for units in self.head.hidden:
            _whole("head.hidden", units, 1, 8192)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able dictionary that `from_dict` reads back to an equal configuration."""
        data = asdict(self)
        data["head"]["hidden"] = list(self.head.hidden)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TrainConfig:
        """The configuration `to_dict` wrote; unknown fields raise InvalidConfig."""
        known = {item.name for item in fields(cls)}
        if stray := sorted(set(data) - known):
            raise InvalidConfig(stray[0], f"no such field; there are {', '.join(sorted(known))}.")
        if "backbone" not in data:
            raise InvalidConfig("backbone", "missing; name one of the known backbones.")
        values = dict(data)
        head = values.pop("head", None) or {}
        if stray := sorted(set(head) - {"hidden", "dropout"}):
            raise InvalidConfig(f"head.{stray[0]}", "no such field; there are dropout, hidden.")
        return cls(**values, head=HeadConfig(tuple(head.get("hidden", ())), head.get("dropout", 0.0)))


def settled(value: T | None) -> T:
    """A field of a configuration that `resolve()` has filled in."""
    if value is None:
        raise TypeError("the configuration is not resolved: call resolve() first")
    return value


def _default(value: T | None, default: T) -> T:
    return default if value is None else value


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidConfig(name, f"{value!r} is not known; use one of {', '.join(allowed)}.")


def _whole(name: str, value: object, low: int, high: int) -> None:
    """None passes: it stands for a default."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidConfig(name, f"{value!r} is not allowed; use a whole number from {low} to {high}.")


def _real(name: str, value: object, *, at_least: float = 0.0, above: float | None = None, up_to: float) -> None:
    if value is None:
        return
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not at_least <= number <= up_to or (above is not None and number <= above):
        floor = f"above {above:g}" if above is not None else f"from {at_least:g}"
        raise InvalidConfig(name, f"{value!r} is not allowed; use a number {floor} up to {up_to:g}.")
