"""The model that a job starts from, as the job remembers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.orm import Job
from app.jobs.states import TERMINAL

# What a spec calls the blobs that its job needs and that another's row may let go of: the model that a training starts
# from, the model that predictions are asked of, and the list of images that they are asked for.
_PINNED = ("base_model", "artefact_sha256", "images_sha256")


@dataclass(frozen=True, slots=True)
class Base:
    """`lineage` holds a JSON-able entry for each ancestor, beginning with this model itself."""

    model_id: UUID
    artefact_sha256: str
    backbone: str
    head: dict[str, Any]
    input_size: int
    lineage: list[dict[str, Any]]


def pinned_artefacts(session: Session) -> Sequence[str]:
    """The SHA-256 of what unfinished jobs start from, models above all: it must not go although its row may."""
    specs = session.scalars(select(Job.spec).where(Job.state.not_in(TERMINAL)))
    return [spec[name] for spec in specs for name in _PINNED if spec.get(name)]
