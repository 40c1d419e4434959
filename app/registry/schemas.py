"""Define how the API describes models."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.vision.settings.config import TrainConfig
from app.vision.settings.hyper_parameter import hyper_parameters

TARGET_PRECISION = hyper_parameters(TrainConfig)["target_precision"]


class Ancestor(BaseModel):
    """A model that another one was fine-tuned from, as it was then. It may have been deleted since."""

    model_id: UUID
    name: str
    job_id: UUID
    dataset_version_id: UUID
    artefact_sha256: str


class DecisionScores(BaseModel):
    """The results of the thresholds on some images."""

    images: int
    accepted: int = Field(description="Number of images whose answer is accepted.")
    coverage: float = Field(description="Share of the images whose answer is accepted.")
    precision: float | None = Field(description="Share of the accepted answers that are right; null if there are none.")
    precision_low: float | None = Field(description="Lower bound of the precision's 95 % interval (Clopper-Pearson).")
    precision_high: float | None = Field(description="Upper bound of that interval.")


class ClassDecisions(DecisionScores):
    """The results of one class's threshold on the images for which the class is predicted."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    label: str = Field(alias="class")


class SplitDecisions(DecisionScores):
    unknown: int = Field(description="Number of images that are `unknown`, and so not accepted.")
    per_class: list[ClassDecisions]


class Decisions(BaseModel):
    """The thresholds of a model and their results. An answer is accepted if its probability reaches its class's
    threshold."""

    target_precision: float
    confidence: float = Field(description="Confidence level of the intervals.")
    thresholds: dict[str, float | None] = Field(
        description="For each class the lowest threshold at which the lower bound of the precision on the validation "
        "images reaches the target. null: no threshold does, and the class is never accepted."
    )
    splits: dict[str, SplitDecisions] = Field(
        description="Results on `val`, which the thresholds were chosen on, and `test`, which did not influence them."
    )


class DecisionTarget(BaseModel):
    """The precision that accepted answers must have."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target_precision": 0.95}]})

    target_precision: float = Field(ge=TARGET_PRECISION.at_least, le=TARGET_PRECISION.at_most)


class ModelOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    backbone: str
    classes: list[str] = Field(description="The classes, in the order of the model's outputs.")
    job_id: UUID = Field(description="The training job; its row is removed some time after its end.")
    dataset_version_id: UUID
    parent_id: UUID | None = Field(description="The model that this one was fine-tuned from; null: published weights.")
    lineage: list[Ancestor] = Field(
        description="The parent, its parent and so on; the last one was fine-tuned from the published `backbone`."
    )
    metrics: dict[str, Any] = Field(
        description="For each split (`val`, and `test` if there is one): accuracy, log_loss, per-class precision, "
        "recall, f1, support, ROC-AUC and average precision, macro and weighted means, the confusion matrix (rows: "
        "true, columns: predicted), calibration before and after temperature scaling, a threshold sweep, coverage "
        "against precision, the share that is `unknown`, the worst mistakes."
    )
    decisions: Decisions | None = Field(
        description="Thresholds of accepted answers; null: there is no target precision."
    )
    preprocessing: dict[str, Any] = Field(description="How an image is prepared, alike in training and prediction.")
    artefact_sha256: str
    artefact_size: int = Field(description="Size of the safetensors file in bytes.")
    pinned: bool = Field(description="Whether the model stays loaded and is loaded when the service starts.")
    created_at: datetime


class AliasTarget(BaseModel):
    """The model that an alias is to mean."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "019a0000-0000-7000-8000-000000000000"}]}
    )

    model: str = Field(min_length=1, max_length=200, description="Id or name@alias of a model with this name.")


class AliasOut(BaseModel):
    """An alias; `name@alias` can be used in place of the model's id."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    alias: str
    model_id: UUID
    updated_at: datetime


class ReportFile(BaseModel):
    name: str
    href: str
    size: int = Field(description="Size in bytes.")


class ReportOut(BaseModel):
    """A model, how it was trained and how good it is."""

    model: ModelOut
    best_epoch: int | None = Field(description="The epoch whose weights the model has, counted from 1.")
    spec: dict[str, Any] = Field(description="The training's fields, with every default filled in.")
    epochs: list[dict[str, Any]] = Field(description="The epochs that `GET /v1/jobs/{id}/metrics` lists.")
    pictures: list[ReportFile] = Field(
        description="PNG files: curves, confusion matrices, reliability diagrams, coverage."
    )
    evaluations: list[ReportFile] = Field(description="Tables with a row for every image; `&format=csv` gives CSV.")
