"""Create a dataset from an archive that has arrived, whichever route received it."""

import re
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from app.api.deps import Services
from app.api.uploads.receiving import ReceivedFile
from app.datasets import service as datasets
from app.datasets.formats.archive import detect_format, names
from app.datasets.formats.layout import check_layout, read_layout
from app.datasets.formats.placement import may_hold_labels
from app.datasets.intake.limits import archive_limits
from app.datasets.orm import Dataset
from app.datasets.schemas import SplitOptions, UploadOptions
from app.ingestions import service as ingestions


def refuse_taken_name(session: Session, workspace_id: UUID, name: str) -> None:
    if datasets.is_name_taken(session, workspace_id, name):
        raise datasets.name_taken(name)


def keep_archive(services: Services, received: ReceivedFile, *, move: bool = False) -> datasets.Upload:
    """Check the archive's layout, put it into the blob store, and return the upload; `move` removes its file.

    Raises `Invalid` or `UnsupportedMedia` for an archive that cannot become a dataset. Call this outside a transaction:
    if the transaction fails later, the garbage collector removes the blob.
    """
    archive_format = detect_format(received.path)
    found = [entry.name for entry in names(received.path, archive_limits(services.settings))]
    if not any(map(may_hold_labels, found)):  # a file of labels is read where the images are, in a bounded process
        check_layout(read_layout(found))
    return datasets.Upload(services.store.put_file(received.path, move=move), archive_format, received.filename)


def create_dataset_of(
    session: Session,
    services: Services,
    workspace_id: UUID,
    options: UploadOptions,
    upload: datasets.Upload,
    max_bytes: int | None = None,
) -> Dataset:
    """Create and return a dataset in state `processing`, and queue the job that reads its upload.

    `max_bytes` limits an import, whose files are still to be fetched.
    """
    dataset = datasets.create(session, workspace_id, options.name or _default_name(upload), upload)
    split = SplitOptions.model_validate(options.model_dump(include=set(SplitOptions.model_fields)))
    limits = services.settings.max_attempts, services.settings.max_queued_jobs
    ingestions.submit(session, services.doorbell, dataset, split, *limits, max_bytes)
    return dataset


def _default_name(upload: datasets.Upload) -> str:
    stem = Path(upload.filename or "").name.split(".")[0]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:100]
    return plain or f"dataset-{upload.archive.sha256[:8]}"
