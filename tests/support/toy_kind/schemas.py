"""What a job that adds is told, what it reports, and what its row keeps."""

from pydantic import Field

from app.jobs.schemas import Metrics, Result, Spec, StoredFile


class AddSpec(Spec):
    numbers: list[int] = Field(min_length=1)
    pause: float = Field(default=0.0, description="Seconds before each of them.")


class AddResult(Result):
    total: int
    file: StoredFile = Field(description="The sum after each number, a line each.")


class AddMetrics(Metrics):
    subtotal: int
