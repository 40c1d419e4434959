"""The dataset that a job asks for, once it can be used, and its newest version."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.core.errors import Conflict, FieldError, Invalid, NotFound
from app.datasets import service as datasets
from app.datasets.orm import Dataset, DatasetVersion
from app.datasets.states import DatasetState


def ready_dataset(
    session: Session, workspace_id: UUID, reference: str, *, lock: bool = False
) -> tuple[Dataset, DatasetVersion]:
    """Return the dataset with that id or name, and its newest version.

    With `lock` it cannot be deleted before the transaction ends. Raises `Invalid` for the field `dataset` where there
    is none, and `Conflict` for one that is still being read or could not be.
    """
    try:
        dataset = datasets.get(session, workspace_id, reference, lock=lock)
    except NotFound as error:
        raise Invalid(error.detail, code="unknown_dataset", errors=[FieldError("dataset", error.detail)]) from None
    if dataset.state is not DatasetState.ready:
        why = (
            "is still being read; wait for its state to be ready"
            if dataset.state is DatasetState.processing
            else (f"could not be read: {(dataset.failure or {}).get('detail', '')} Upload it again")
        )
        raise Conflict(f"The dataset {dataset.name!r} {why}.", code="dataset_not_ready", retry_after=2)
    return dataset, datasets.latest_versions(session, [dataset.id])[dataset.id]
