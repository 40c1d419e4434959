"""What a training run is told: backbone, which layers learn, head, schedule; with defaults and checks."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeVar, get_args

from app.vision.backbones.catalogue import Backbone, get_backbone
from app.vision.errors import InvalidConfig, UnknownBackbone
from app.vision.settings.bounds import one_of, real, whole
from app.vision.settings.presets import PresetName, Transform, preset_of

Train = Literal["head", "last_stages", "all"]
OptimizerName = Literal["sgd", "adam", "adamw"]
Schedule = Literal["constant", "step", "cosine", "exponential", "one_cycle", "plateau"]
Augmentation = PresetName | tuple[Transform, ...]
Pooling = Literal["avg", "max", "gem"]
Imbalance = Literal["none", "weights", "sampling"]
OnOutOfMemory = Literal["fail", "shrink"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]

T = TypeVar("T")

MIN_INPUT_SIZE, MAX_INPUT_SIZE = 32, 1024
# A VGG halves its input five times; below this nothing is left to pool, and a ResNet sees too little anyway.

LEAST_TARGET, MOST_TARGET = 0.5, 0.9999  # of a precision; certainty cannot be shown by any number of images

# The most that fields from zero up may be.
_FROM_ZERO = {
    "weight_decay": 100.0,
    "warmup": 0.5,
    "clip_norm": 1000.0,
    "l1": 1.0,
    "label_smoothing": 0.9,
    "ema": 0.9999,
    "focal_gamma": 10.0,
    "mixup": 10.0,
    "cutmix": 10.0,
}


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """The grafted head: linear, or ReLU layers of `hidden` units before it, `dropout` in front of each linear layer.

    `pooling` makes one feature of each of the trunk's maps: its mean, its maximum, or a generalised mean between them.
    """

    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    pooling: Pooling = "avg"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run. A None is replaced by `resolve()` with a default that suits `train` and the backbone.

    What the fields mean stands in `settings.descriptions`. Beside those, `last_stages` counts from the head down and is
    read only when `train` is "last_stages"; `base_model` is the SHA-256 of the model file to start from, in place of
    the published weights.
    """

    backbone: str
    train: Train = "head"
    last_stages: int = 1
    head: HeadConfig = field(default_factory=HeadConfig)
    epochs: int | None = None
    batch_size: int | Literal["auto"] | None = None
    optimizer: OptimizerName = "adamw"
    learning_rate: float | None = None
    schedule: Schedule = "cosine"
    weight_decay: float | None = None
    augmentation: Augmentation | None = None
    input_size: int | None = None
    seed: int = 0
    warmup: float = 0.05
    layer_decay: float = 1.0
    unfreeze_every: int = 0
    accumulate: int = 1
    clip_norm: float = 0.0
    l1: float = 0.0
    label_smoothing: float = 0.0
    patience: int = 0
    ema: float = 0.0
    imbalance: Imbalance = "none"
    focal_gamma: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    precision: Precision = "auto"
    loader_workers: int = 0
    find_rate: bool = False
    base_model: str | None = None
    compile: bool = False
    on_out_of_memory: OnOutOfMemory = "fail"
    views: int = 4
    target_precision: float | None = None

    def resolve(self) -> TrainConfig:
        """The same run with every None filled in; raises InvalidConfig naming the field that cannot stand."""
        backbone = self._check()
        frozen = self.train == "head"
        # Plain SGD takes about thirty times the step of Adam for the same progress.
        rates = {"sgd": 0.03 if frozen else 0.01, "adam": 2e-3 if frozen else 3e-4, "adamw": 2e-3 if frozen else 3e-4}
        decays = {"sgd": 1e-4, "adam": 0.0, "adamw": 1.0 if frozen else 0.05}
        resolved = replace(
            self,
            epochs=_default(self.epochs, 40 if frozen else 12),
            batch_size=_default(self.batch_size, 32),
            learning_rate=None if self.find_rate else _default(self.learning_rate, rates[self.optimizer]),
            weight_decay=_default(self.weight_decay, decays[self.optimizer]),
            augmentation=_default(self.augmentation, "none" if frozen else "light"),
            input_size=_default(self.input_size, backbone.input_size),
        )
        resolved._check_together(backbone)
        return resolved

    def thawed_stages(self, backbone: Backbone) -> int:
        """How many of the trunk's stages learn in the end, counted from the head down."""
        return {"head": 0, "last_stages": self.last_stages, "all": backbone.stages}[self.train]

    def _check(self) -> Backbone:
        try:
            backbone = get_backbone(self.backbone)
        except UnknownBackbone as error:
            raise InvalidConfig("backbone", str(error)) from error
        if self.base_model is not None and not re.fullmatch("[0-9a-f]{64}", self.base_model):
            raise InvalidConfig("base_model", f"{self.base_model!r} is not the SHA-256 of a model file.")
        if self.find_rate and self.learning_rate is not None:
            raise InvalidConfig("find_rate", f"and learning_rate {self.learning_rate!r}: leave one of them out.")
        one_of("train", self.train, get_args(Train))
        one_of("optimizer", self.optimizer, get_args(OptimizerName))
        one_of("schedule", self.schedule, get_args(Schedule))
        one_of("imbalance", self.imbalance, get_args(Imbalance))
        one_of("precision", self.precision, get_args(Precision))
        if isinstance(self.augmentation, tuple):
            preset_of(self.augmentation)
        elif self.augmentation is not None:
            one_of("augmentation", self.augmentation, get_args(PresetName))
        whole("last_stages", self.last_stages, 1, backbone.stages)
        whole("epochs", self.epochs, 1, 10_000)
        if self.batch_size != "auto":
            whole("batch_size", self.batch_size, 1, 4096)
        one_of("on_out_of_memory", self.on_out_of_memory, get_args(OnOutOfMemory))
        if not isinstance(self.compile, bool):
            raise InvalidConfig("compile", f"{self.compile!r} is not allowed; use true or false.")
        whole("input_size", self.input_size, MIN_INPUT_SIZE, MAX_INPUT_SIZE)
        whole("seed", self.seed, 0, 2**32 - 1)
        whole("unfreeze_every", self.unfreeze_every, 0, 10_000)
        whole("accumulate", self.accumulate, 1, 1024)
        whole("patience", self.patience, 0, 10_000)
        whole("views", self.views, 1, 64)
        whole("loader_workers", self.loader_workers, 0, 64)
        real("learning_rate", self.learning_rate, above=0.0, up_to=10.0)
        real("layer_decay", self.layer_decay, above=0.0, up_to=1.0)
        for name, most in _FROM_ZERO.items():
            real(name, getattr(self, name), up_to=most)
        real("head.dropout", self.head.dropout, up_to=0.95)
        real("target_precision", self.target_precision, at_least=LEAST_TARGET, up_to=MOST_TARGET)
        one_of("head.pooling", self.head.pooling, get_args(Pooling))
        if len(self.head.hidden) > 4:
            raise InvalidConfig("head.hidden", f"{len(self.head.hidden)} layers; use at most 4.")
        for units in self.head.hidden:
            whole("head.hidden", units, 1, 8192)
        return backbone

    def _check_together(self, backbone: Backbone) -> None:
        """What each field alone cannot tell."""
        if self.cutmix and self.train == "head":
            raise InvalidConfig(
                "cutmix",
                f"{self.cutmix!r} with a frozen trunk, whose features are computed once; use mixup, or let stages"
                " learn.",
            )
        if self.find_rate and self.batch_size == "auto":
            raise InvalidConfig("batch_size", "'auto' with find_rate, which tries rates at one size; name a number.")
        stages, epochs = self.thawed_stages(backbone), settled(self.epochs)
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
        """A JSON-able dictionary that `from_dict` reads back to an equal configuration."""
        data = asdict(self)
        data["head"]["hidden"] = list(self.head.hidden)
        if isinstance(self.augmentation, tuple):
            data["augmentation"] = [transform.to_dict() for transform in self.augmentation]
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
        if stray := sorted(set(head) - {item.name for item in fields(HeadConfig)}):
            raise InvalidConfig(f"head.{stray[0]}", "no such field; there are dropout, hidden, pooling.")
        if isinstance(values.get("augmentation"), list):
            values["augmentation"] = tuple(Transform.from_dict(entry) for entry in values["augmentation"])
        return cls(**values, head=HeadConfig(**{**head, "hidden": tuple(head.get("hidden", ()))}))


def settled(value: T | None) -> T:
    """A field of a configuration that `resolve()` has filled in."""
    if value is None:
        raise TypeError("the configuration is not resolved: call resolve() first")
    return value


def whole_batch(config: TrainConfig) -> int:
    """The batch size of a run that has settled what "auto" comes to."""
    if not isinstance(config.batch_size, int):
        raise TypeError(f"batch_size is {config.batch_size!r}: a run settles it when it begins")
    return config.batch_size


def _default(value: T | None, default: T) -> T:
    return default if value is None else value
