"""What the API says of datasets."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.datasets.orm import DatasetState


class SplitOptions(BaseModel):
    """How images are divided where the upload brings no `val` split. Drawn per class, from `seed` alone."""

    model_config = ConfigDict(extra="forbid")

    val_fraction: float = Field(default=0.2, gt=0, lt=0.9)
    test_fraction: float = Field(default=0.0, ge=0, lt=0.9)
    seed: int = Field(default=0, ge=0, lt=2**32)


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
