"""Schemas of a training job's request; its hyper-parameters are those of the training library."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from app.core.plain_text import PLAIN
from app.jobs.scheduling import Scheduled
from app.trainings.augmentation import Augmentation
from app.trainings.hyper_parameters import bounds, description, with_hyper_parameters
from app.vision.settings.config import HeadConfig, TrainConfig
from app.vision.settings.hyper_parameter import hyper_parameters

PARAMETERS = hyper_parameters(TrainConfig)


class LastStages(BaseModel):
    """Train the last n stages of the backbone together with the head."""

    model_config = ConfigDict(extra="forbid")

    last_stages: Annotated[int, Field(**bounds(PARAMETERS["last_stages"]))]


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


Train = Annotated[Literal["head", "all"] | LastStages, BeforeValidator(_check_train)]


@with_hyper_parameters(HeadConfig)
class Head(BaseModel):
    """The new classifier: linear, or hidden ReLU layers with dropout before each linear layer."""

    model_config = ConfigDict(extra="forbid")


class Resources(BaseModel):
    """Says what one job may use. More makes the model come sooner, and the same but for rounding."""

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


@with_hyper_parameters(
    TrainConfig,
    without=frozenset({"last_stages"}),
    forms={"train": Train, "head": Head, "augmentation": Augmentation},
    more={
        "train": 'Say `"head"`, `{"last_stages": n}` or `"all"`.',
        "find_rate": "The job's result has the rate and the curve.",
        "precision": "Where such a job is run on a CPU it fails with `invalid_config`.",
        "target_precision": "Each answer says whether it reaches its class's. "
        "PUT /v1/models/{id}/decisions sets another without training.",
    },
)
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
        description=description(
            PARAMETERS["backbone"],
            "A name from GET /v1/backbones. `auto`: resnet18 where its weights lie on the server, "
            "else the bundled resnet18-tiny64.",
        ),
    )
    base_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        pattern=PLAIN,
        description=description(
            PARAMETERS["base_model"], "Id or name of a model of yours; of several of one name, the newest."
        ),
    )
    resources: Resources = Field(default=Resources(), description="What the job may use: processes and machines.")

    def config(self, backbone: str) -> TrainConfig:
        """Return the same request in the training library's words, not yet resolved."""
        fields = {name.split(".")[0] for name in PARAMETERS} - {"backbone", "base_model"}
        asked = self.model_dump(include=fields)
        if isinstance(asked["train"], dict):
            asked |= {"train": "last_stages", **asked["train"]}
        return TrainConfig.from_dict({**asked, "backbone": backbone})
