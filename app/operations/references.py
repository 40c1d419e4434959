"""Find the blobs that the rows of a database need."""

from sqlalchemy.orm import Session

from app import work  # noqa: F401  (which blobs a job needs, its kind says)
from app.datasets import service as datasets
from app.jobs import service as jobs
from app.registry import service as registry


def referenced_blobs(session: Session) -> set[str]:
    """Return the SHA-256 of every blob that some row refers to."""
    found: set[str] = set()
    for of_domain in (datasets.referenced_blobs, jobs.referenced_blobs, registry.referenced_blobs):
        found.update(of_domain(session))
    return found
