"""Define how the API describes datasets, and how a caller changes them."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from app.datasets.states import DatasetState
from app.vision.data.folder_names import Split


class SplitOptions(BaseModel):
    """The division of images if the upload has no `val` split. It is drawn for each class, from `seed` alone."""

    model_config = ConfigDict(extra="forbid")

    val_fraction: float = Field(default=0.2, gt=0, lt=0.9)
    test_fraction: float = Field(default=0.0, ge=0, lt=0.9)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @field_validator("test_fraction")
    @classmethod
    def _leaves_some_to_train_on(cls, value: float, others: ValidationInfo) -> float:
        val_fraction = others.data.get("val_fraction", 0.0)
        if val_fraction + value >= 1:
            raise ValueError(f"with val_fraction {val_fraction} nothing is left to train on; keep their sum below 1")
        return value


class UploadOptions(SplitOptions):
    """The dataset's name, and its division if the upload has no `val` split."""

    name: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$",
        description="A name that is unique in the workspace; the file's name, or a part of its hash, if left out.",
    )


class UploadOut(BaseModel):
    """A resumable upload."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    length: int = Field(description="Size of the whole file in bytes.")
    received: int = Field(description="Number of bytes received so far, which is the offset to continue from.")
    filename: str | None
    options: UploadOptions
    sha256: str | None = Field(description="SHA-256 that the whole file must have, if one was given.")
    dataset_id: UUID | None = Field(description="The dataset, once all bytes have arrived.")
    created_at: datetime
    expires_at: datetime = Field(description="Time at which the upload is removed unless more bytes arrive.")


class FileFinding(BaseModel):
    """A file of the upload that was left out, or kept with a note."""

    file: str
    code: str = Field(description="A stable word: truncated_image, not_an_image, no_class_folder, duplicate, …")
    reason: str
    remedy: str | None = None


class IngestionReport(BaseModel):
    """The result for every file. The lists hold at most 1,000 entries; the counts are complete."""

    files: int
    accepted: int
    rejected_count: int
    rejected: list[FileFinding]
    noted_count: int
    noted: list[FileFinding]


class Failure(BaseModel):
    """The reason why something ended without a result."""

    reason: str = Field(description="A stable word for programs: invalid_data, out_of_memory, worker_lost, …")
    detail: str
    hint: str | None = None


class VersionOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    number: int
    sha256: str = Field(
        validation_alias="manifest_sha256", description="Hash of the manifest; the same content has it."
    )
    classes: list[str]
    counts: dict[str, dict[str, int]] = Field(description="Number of images in each split and class.")
    created_at: datetime


class ImageOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sha256: str = Field(description="SHA-256 of the image's bytes, which identifies it in every path.")
    name: str = Field(description="Name of the file that the image came from.")
    label: str
    split: Split
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    size: int = Field(description="Size in bytes.")
    metadata: dict[str, Any] | None = Field(validation_alias="extra", description="Further facts from the upload.")


class ImageChange(BaseModel):
    """The change of an image; fields that are left out stay as they are."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"label": "bees"}, {"split": "val"}]})

    label: str | None = Field(default=None, min_length=1, max_length=255)
    split: Split | None = None
    metadata: dict[str, Any] | None = None


class ItemError(BaseModel):
    code: str
    detail: str


class AddedItem(BaseModel):
    """The result for one file."""

    file: str | None = Field(description="The name that was sent with the file.")
    status: Literal["added", "unchanged", "error"] = Field(
        description="`unchanged` means that the dataset already had the image with this label."
    )
    sha256: str | None = None
    error: ItemError | None = None


class AddedOut(BaseModel):
    items: list[AddedItem] = Field(description="A result for each file, in the order of the request.")


class Severity(StrEnum):
    """The severity of a finding.

    `error`: results will be wrong. `warning`: they may be worse, or look better than they are.
    """

    error = "error"
    warning = "warning"
    info = "info"


class Finding(BaseModel):
    """A fact about a dataset that may spoil a training."""

    code: str = Field(description="A stable word for programs.")
    severity: Severity
    message: str
    remedy: str
    count: int = Field(description="Number of images, pairs, classes or files; of files left out at most 1,000.")
    images: list[str] = Field(description="SHA-256 of the images concerned, at most 200; pairs stand together.")
    model_id: UUID | None = Field(default=None, description="The model whose answers led to the finding, if any.")


class Spread(BaseModel):
    """A distribution: its extremes, its 5th and 95th percentiles, and its median."""

    min: float
    p05: float
    median: float
    p95: float
    max: float


class DatasetReport(BaseModel):
    images: int
    counts: dict[str, dict[str, int]] = Field(description="Number of images in each split and class.")
    width: Spread | None = Field(description="Width in pixels.")
    height: Spread | None = Field(description="Height in pixels.")
    aspect: Spread | None = Field(description="Width divided by height.")
    bytes: Spread | None = Field(description="Size in bytes.")
    findings: list[Finding] = Field(description="Findings, the gravest first.")


class LineageVersion(BaseModel):
    dataset_id: UUID
    dataset: str
    deleted: bool = Field(description="Whether the dataset has been deleted since.")
    version_id: UUID
    number: int
    sha256: str


class LineageModel(BaseModel):
    id: UUID
    name: str
    version_id: UUID


class LineageOut(BaseModel):
    """The versions that hold an image, and the models trained on them."""

    sha256: str
    versions: list[LineageVersion]
    models: list[LineageModel]


class DatasetOut(BaseModel):
    id: UUID
    name: str
    state: DatasetState
    progress: float = Field(description="Progress of reading the upload, 0 to 1.")
    job_id: UUID | None = Field(description="The ingest job.")
    version: VersionOut | None
    report: IngestionReport | None
    failure: Failure | None
    upload: dict[str, Any] = Field(description="Facts about the upload: bytes, sha256, format.")
    created_at: datetime
