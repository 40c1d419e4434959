"""Schemas of the spec and the result of a job that fills a dataset."""

from uuid import UUID

from pydantic import Field

from app.jobs.schemas import Result, Spec


class IngestSpec(Spec):
    """The place of the files, and how they are divided where they bring no `val` split."""

    archive_sha256: str = Field(description="Of the archive, or of the document that says where the files are.")
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    seed: int = 0
    format: str | None = Field(default=None, description="Of a document that says where the files are.")
    max_bytes: int | None = Field(default=None, description="Most that may be read from there.")


class IngestResult(Result):
    dataset_version_id: UUID
    images: int
