"""What the API says of datasets."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from app.datasets.states import DatasetState
from app.vision.data.folder_names import Split


class SplitOptions(BaseModel):
    """How images are divided where the upload brings no `val` split. Drawn per class, from `seed` alone."""

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
    """What to call the dataset, and how to divide it where the upload brings no `val` split."""

    name: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$",
        description="Unique in the workspace; the file's name, or a part of its hash, if left out.",
    )


class UploadOut(BaseModel):
    """A resumable upload."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    length: int = Field(description="Bytes of the whole file.")
    received: int = Field(description="Bytes that have come and are kept: the offset to go on from.")
    filename: str | None
    options: UploadOptions
    sha256: str | None = Field(description="That the whole file has to have, if one was named.")
    dataset_id: UUID | None = Field(description="Set once all bytes have come.")
    created_at: datetime
    expires_at: datetime = Field(description="Removed then, unless more bytes come before.")


class FileFinding(BaseModel):
    """One file of the upload that was left out, or kept with a remark."""

    file: str
    code: str = Field(description="Stable: truncated_image, not_an_image, no_class_folder, duplicate, …")
    reason: str
    remedy: str | None = None


class IngestionReport(BaseModel):
    """What became of every file. The lists hold at most 1,000 entries; the counts are complete."""

    files: int
    accepted: int
    rejected_count: int
    rejected: list[FileFinding]
    noted_count: int
    noted: list[FileFinding]


class Failure(BaseModel):
    """Why something ended without a result."""

    reason: str = Field(description="Stable and for programs: invalid_data, out_of_memory, worker_lost, …")
    detail: str
    hint: str | None = None


class VersionOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    number: int
    sha256: str = Field(validation_alias="manifest_sha256", description="Of the manifest: same content, same hash.")
    classes: list[str]
    counts: dict[str, dict[str, int]] = Field(description="Images by split and class.")
    created_at: datetime


class ImageOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sha256: str = Field(description="Of its bytes; what the image is called in every path.")
    name: str = Field(description="Of the file that it came from.")
    label: str
    split: Split
    width: int = Field(description="Pixels.")
    height: int
    size: int = Field(description="Bytes.")
    metadata: dict[str, Any] | None = Field(validation_alias="extra", description="What else the upload said of it.")


class ImageChange(BaseModel):
    """What is to be different about an image; fields that are left out stay."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"label": "bees"}, {"split": "val"}]})

    label: str | None = Field(default=None, min_length=1, max_length=255)
    split: Split | None = None
    metadata: dict[str, Any] | None = None


class ItemError(BaseModel):
    code: str
    detail: str


class AddedItem(BaseModel):
    """What became of one file."""

    file: str | None = Field(description="The name that was sent with it.")
    status: Literal["added", "unchanged", "error"] = Field(description="`unchanged`: it was there, with this label.")
    sha256: str | None = None
    error: ItemError | None = None


class AddedOut(BaseModel):
    items: list[AddedItem] = Field(description="In the order of the files sent.")


class Severity(StrEnum):
    """`error`: results will be wrong; `warning`: they may be worse, or look better than they are."""

    error = "error"
    warning = "warning"
    info = "info"


class Finding(BaseModel):
    """Something about a dataset that whoever trains on it should know."""

    code: str = Field(description="Stable and for programs.")
    severity: Severity
    message: str
    remedy: str
    count: int = Field(description="How many images, pairs, classes or files; of files left out 1,000 are known.")
    images: list[str] = Field(description="SHA-256 of images it is about, at most 200; pairs stand together.")
    model_id: UUID | None = Field(default=None, description="Of the model whose opinion it is, where it is one.")


class Spread(BaseModel):
    """A distribution: its extremes, its 5th and 95th hundredth, its middle."""

    min: float
    p05: float
    median: float
    p95: float
    max: float


class DatasetReport(BaseModel):
    images: int
    counts: dict[str, dict[str, int]] = Field(description="Images by split and class.")
    width: Spread | None = Field(description="Pixels.")
    height: Spread | None
    aspect: Spread | None = Field(description="Width by height.")
    bytes: Spread | None
    findings: list[Finding] = Field(description="The gravest first.")


class LineageVersion(BaseModel):
    dataset_id: UUID
    dataset: str
    deleted: bool = Field(description="Whether that dataset was deleted since.")
    version_id: UUID
    number: int
    sha256: str


class LineageModel(BaseModel):
    id: UUID
    name: str
    version_id: UUID


class LineageOut(BaseModel):
    """Where an image was used."""

    sha256: str
    versions: list[LineageVersion]
    models: list[LineageModel]


class DatasetOut(BaseModel):
    id: UUID
    name: str
    state: DatasetState
    progress: float = Field(description="0 to 1, of reading the upload.")
    job_id: UUID | None = Field(description="The ingestion job.")
    version: VersionOut | None
    report: IngestionReport | None
    failure: Failure | None
    upload: dict[str, Any] = Field(description="What was sent: bytes, sha256, format.")
    created_at: datetime
