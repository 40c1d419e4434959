"""What a job that fills a dataset is told, and what its row keeps of what it found."""

from uuid import UUID

from pydantic import Field

from app.jobs.schemas import Result, Spec


class IngestSpec(Spec):
    """Where the files are, and how they are divided where they bring no `val` split."""

    archive_sha256: str = Field(description="Of the archive, or of the document that says where the files are.")
    val_fraction: float = 0.2
    test_fraction: float = 0.0
    seed: int = 0
    format: str | None = Field(default=None, description="Of a document that says where the files are.")
    max_bytes: int | None = Field(default=None, description="Most that may be read from there.")


class IngestResult(Result):
    dataset_version_id: UUID
    images: int
