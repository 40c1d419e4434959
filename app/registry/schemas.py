"""What the API says of models."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.vision.settings.config import TrainConfig
from app.vision.settings.hyper_parameter import hyper_parameters

TARGET_PRECISION = hyper_parameters(TrainConfig)["target_precision"]


class Ancestor(BaseModel):
    """A model that another was fine-tuned from, as it was then; it may be deleted by now."""

    model_id: UUID
    name: str
    job_id: UUID
    dataset_version_id: UUID
    artefact_sha256: str


class DecisionScores(BaseModel):
    """What comes of the thresholds on some images."""

    images: int
    accepted: int
    coverage: float = Field(description="Share that is accepted.")
    precision: float | None = Field(description="Share of the accepted that are right; null where none is accepted.")
    precision_low: float | None = Field(description="Lower bound of its interval of 95 % (Clopper-Pearson).")
    precision_high: float | None


class ClassDecisions(DecisionScores):
    """Of the images for which the class is predicted."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    label: str = Field(alias="class")


class SplitDecisions(DecisionScores):
    unknown: int = Field(description="Images that are unknown, and so not accepted.")
    per_class: list[ClassDecisions]


class Decisions(BaseModel):
    """Which answers are accepted: those whose class has a threshold that their probability reaches."""

    target_precision: float
    confidence: float = Field(description="Of the intervals.")
    thresholds: dict[str, float | None] = Field(
        description="By class, the lowest at which the validation images show the target: the lower bound of the "
        "precision reaches it. null: none does, and the class is never accepted."
    )
    splits: dict[str, SplitDecisions] = Field(
        description="`val`, which they were chosen on; `test`, which they never saw."
    )


class DecisionTarget(BaseModel):
    """The precision that accepted answers are to have."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"target_precision": 0.95}]})

    target_precision: float = Field(ge=TARGET_PRECISION.at_least, le=TARGET_PRECISION.at_most)


class ModelOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    backbone: str
    classes: list[str] = Field(description="In the order of the model's outputs.")
    job_id: UUID = Field(description="The training; its row is forgotten some time after its end.")
    dataset_version_id: UUID
    parent_id: UUID | None = Field(description="The model it was fine-tuned from; null: published weights.")
    lineage: list[Ancestor] = Field(
        description="The parent, its parent and so on; the last one was fine-tuned from the published `backbone`."
    )
    metrics: dict[str, Any] = Field(
        description="By split (`val`, and `test` where there is one): accuracy, log_loss, per-class precision, recall, "
        "f1, support, ROC-AUC and average precision, macro and weighted means, the confusion matrix (rows: true, "
        "columns: predicted), calibration before and after temperature scaling, a threshold sweep, coverage against "
        "precision, the share that is `unknown`, the worst mistakes."
    )
    decisions: Decisions | None = Field(description="What is accepted; null: the model has no target of precision.")
    preprocessing: dict[str, Any] = Field(description="How an image is prepared, in training and in prediction alike.")
    artefact_sha256: str
    artefact_size: int = Field(description="Bytes of the safetensors file.")
    pinned: bool = Field(description="Whether it stays loaded once it is, and is loaded when the service starts.")
    created_at: datetime


class AliasTarget(BaseModel):
    """What an alias is to mean."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": "019a0000-0000-7000-8000-000000000000"}]}
    )

    model: str = Field(min_length=1, max_length=200, description="Id, or name@alias, of a model of this name.")


class AliasOut(BaseModel):
    """An alias; the model answers to `name@alias` wherever its id would do."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    alias: str
    model_id: UUID
    updated_at: datetime


class ReportFile(BaseModel):
    name: str
    href: str
    size: int = Field(description="Bytes.")


class ReportOut(BaseModel):
    """All that is known of how a model was trained and how good it is."""

    model: ModelOut
    best_epoch: int | None = Field(description="Whose weights the model has; from 1.")
    spec: dict[str, Any] = Field(description="The training's fields, with every default filled in.")
    epochs: list[dict[str, Any]] = Field(description="What `GET /v1/jobs/{id}/metrics` lists.")
    pictures: list[ReportFile] = Field(description="PNG: curves, confusion matrices, reliability diagrams, coverage.")
    evaluations: list[ReportFile] = Field(description="A row for every image of a split; `&format=csv` gives CSV.")
