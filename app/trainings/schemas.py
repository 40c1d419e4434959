"""What a caller may ask of a training job. Defaults are `app.vision.settings.config`'s."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.core.plain_text import PLAIN
from app.jobs.scheduling import Scheduled
from app.trainings.augmentation import Augmentation
from app.vision.settings.config import (
    LEAST_TARGET,
    MOST_TARGET,
    HeadConfig,
    Imbalance,
    OnOutOfMemory,
    OptimizerName,
    Pooling,
    Precision,
    Schedule,
    TrainConfig,
)
from app.vision.settings.descriptions import MEANINGS
from app.vision.settings.presets import Transform


class LastStages(BaseModel):
    """Train the last n stages of the backbone together with the head."""

    model_config = ConfigDict(extra="forbid")

    last_stages: int = Field(ge=1)


def _check_train(value: Any) -> Any:
    if isinstance(value, str) and value in ("head", "all"):
        return value
    if isinstance(value, LastStages):
        return value
    if isinstance(value, dict) and set(value) == {"last_stages"}:
        stages = value["last_stages"]
        if isinstance(stages, int) and not isinstance(stages, bool) and stages >= 1:
            return value
        raise ValueError(f"last_stages is {stages!r}; use a whole number from 1 to the backbone's stages")
    raise ValueError(f'{value!r} is not known; use "head", "all" or {{"last_stages": n}}')


def _check_batch_size(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value is None or value == "auto" or (whole and 1 <= value <= 4096):
        return value
    raise ValueError(f'{value!r} is not allowed; use a whole number from 1 to 4096, or "auto"')


BatchSize = Annotated[Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] | None, BeforeValidator(_check_batch_size)]
Train = Annotated[Literal["head", "all"] | LastStages, BeforeValidator(_check_train)]


class Head(BaseModel):
    """The new classifier: linear, or hidden ReLU layers with dropout before each linear layer."""

    model_config = ConfigDict(extra="forbid")

    hidden: list[Annotated[int, Field(ge=1, le=8192)]] = Field(
        default=[], max_length=4, description=MEANINGS["head.hidden"]
    )
    dropout: float = Field(default=HeadConfig().dropout, ge=0, le=0.95, description=MEANINGS["head.dropout"])
    pooling: Pooling = Field(default=HeadConfig().pooling, description=MEANINGS["head.pooling"])


class Resources(BaseModel):
    """What one job may use. More of it changes how fast the model comes, and not what it is (beyond rounding)."""

    model_config = ConfigDict(extra="forbid")

    processes: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes of each machine that share every batch: one a GPU, or without GPUs some of its cores.",
    )
    machines: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Workers that train together, each with so many processes. More than one needs a service on "
        "PostgreSQL. The job starts when as many are free, and waits for `machines` until then.",
    )


# Fields that mean the same, under the same name, to the caller and to the training library.
_SHARED_FIELDS = {
    "epochs",
    "batch_size",
    "optimizer",
    "learning_rate",
    "find_rate",
    "schedule",
    "weight_decay",
    "augmentation",
    "input_size",
    "seed",
    "warmup",
    "layer_decay",
    "unfreeze_every",
    "accumulate",
    "clip_norm",
    "l1",
    "label_smoothing",
    "patience",
    "ema",
    "imbalance",
    "focal_gamma",
    "mixup",
    "cutmix",
    "precision",
    "compile",
    "on_out_of_memory",
    "views",
    "loader_workers",
    "target_precision",
}


class TrainRequest(Scheduled):
    """A transfer-learning job. Only `dataset` is required; what is left out gets a default that fits the rest."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"dataset": "pets"},
                {
                    "dataset": "pets",
                    "backbone": "resnet50",
                    "train": {"last_stages": 1},
                    "head": {"hidden": [1024], "dropout": 0.5},
                    "epochs": 12,
                    "batch_size": 32,
                    "optimizer": "adamw",
                    "learning_rate": 0.0003,
                    "schedule": "cosine",
                    "weight_decay": 0.01,
                    "augmentation": "standard",
                    "seed": 7,
                },
            ]
        },
    )

    dataset: str = Field(
        min_length=1,
        max_length=100,
        pattern=PLAIN,
        description="Id or name of a dataset that is ready.",
    )
    model_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        pattern=PLAIN,
        description="Of the model to be; the dataset's name if left out.",
    )
    backbone: str = Field(
        default="auto",
        description="A name from GET /v1/backbones. `auto`: resnet18 where its weights lie on the server, "
        "else the bundled resnet18-tiny64.",
    )
    base_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        pattern=PLAIN,
        description="Id or name of a model of yours to start from, in place of published weights: its trunk, input "
        "size and head layers, and its head's weights where the classes are the same. Of one name, the newest.",
    )
    train: Train = Field(
        default="head",
        description='What is trained: `"head"` (trunk frozen), `{"last_stages": n}` or `"all"`.',
    )
    head: Head = Head()
    epochs: int | None = Field(default=None, ge=1, le=10_000, description=MEANINGS["epochs"])
    batch_size: BatchSize = Field(default=None, description=MEANINGS["batch_size"])
    optimizer: OptimizerName = Field(default="adamw", description=MEANINGS["optimizer"])
    learning_rate: float | None = Field(default=None, gt=0, le=10, description=MEANINGS["learning_rate"])
    find_rate: bool = Field(
        default=False,
        description=f"{MEANINGS['find_rate']} The job's result has the rate and the curve.",
    )
    schedule: Schedule = Field(default="cosine", description=MEANINGS["schedule"])
    weight_decay: float | None = Field(default=None, ge=0, le=100, description=MEANINGS["weight_decay"])
    augmentation: Augmentation = Field(
        default=None,
        description=MEANINGS["augmentation"],
        examples=["standard", [{"name": "crop", "min_area": 0.6}, {"name": "rotate", "degrees": 15}]],
    )
    input_size: int | None = Field(default=None, ge=32, le=1024, description=MEANINGS["input_size"])
    seed: int = Field(default=0, ge=0, lt=2**32, description=MEANINGS["seed"])
    warmup: float = Field(default=0.05, ge=0, le=0.5, description=MEANINGS["warmup"])
    layer_decay: float = Field(default=1.0, gt=0, le=1, description=MEANINGS["layer_decay"])
    unfreeze_every: int = Field(default=0, ge=0, le=10_000, description=MEANINGS["unfreeze_every"])
    accumulate: int = Field(default=1, ge=1, le=1024, description=MEANINGS["accumulate"])
    clip_norm: float = Field(default=0.0, ge=0, le=1000, description=MEANINGS["clip_norm"])
    l1: float = Field(default=0.0, ge=0, le=1, description=MEANINGS["l1"])
    label_smoothing: float = Field(default=0.0, ge=0, le=0.9, description=MEANINGS["label_smoothing"])
    patience: int = Field(default=0, ge=0, le=10_000, description=MEANINGS["patience"])
    ema: float = Field(default=0.0, ge=0, le=0.9999, description=MEANINGS["ema"])
    imbalance: Imbalance = Field(default="none", description=MEANINGS["imbalance"])
    focal_gamma: float = Field(default=0.0, ge=0, le=10, description=MEANINGS["focal_gamma"])
    mixup: float = Field(default=0.0, ge=0, le=10, description=MEANINGS["mixup"])
    cutmix: float = Field(default=0.0, ge=0, le=10, description=MEANINGS["cutmix"])
    precision: Precision = Field(
        default="auto",
        description=f"{MEANINGS['precision']} Where such a job is run on a CPU it fails with `invalid_config`.",
    )
    compile: bool = Field(default=False, description=MEANINGS["compile"])
    on_out_of_memory: OnOutOfMemory = Field(default="fail", description=MEANINGS["on_out_of_memory"])
    views: int = Field(default=4, ge=1, le=64, description=MEANINGS["views"])
    loader_workers: int = Field(default=0, ge=0, le=64, description=MEANINGS["loader_workers"])

    target_precision: float | None = Field(
        default=None,
        ge=LEAST_TARGET,
        le=MOST_TARGET,
        description=f"{MEANINGS['target_precision']} Each answer says whether it reaches its class's. "
        "PUT /v1/models/{id}/decisions sets another without training.",
    )
    resources: Resources = Field(default=Resources(), description="What the job may use: processes and machines.")

    def config(self, backbone: str) -> TrainConfig:
        """The same request in the training library's words, not yet resolved."""
        stages = self.train.last_stages if isinstance(self.train, LastStages) else None
        shared: dict[str, Any] = self.model_dump(include=_SHARED_FIELDS)
        if stages is not None:
            shared["last_stages"] = stages
        if isinstance(shared["augmentation"], list):
            shared["augmentation"] = tuple(Transform.from_dict(entry) for entry in shared["augmentation"])
        return TrainConfig(
            backbone=backbone,
            train="last_stages" if isinstance(self.train, LastStages) else self.train,
            head=HeadConfig(tuple(self.head.hidden), self.head.dropout, self.head.pooling),
            **shared,
        )
