"""A child's work on an ingestion job: read the archive, verify every image, freeze the result."""

import os
import resource
from pathlib import Path
from typing import Any

from app.core.errors import GraftError
from app.core.settings import Settings
from app.datasets.ingestion import UnusableUpload
from app.datasets.ingestion import ingest as ingest_archive
from app.datasets.intake_pool import IntakePool
from app.datasets.limits import archive_limits, intake_limits
from app.jobs.states import FailureReason
from app.storage.configured import configured_store
from worker.messages import Work
from worker.parent import JobFailure, Parent, StopRequested

_MEMORY_BYTES = (
    8 * 2**30
)  # of address space, for labels and the archive's directory; images are read in processes of their own
_NAMED = 5  # problems that a failure spells out; every class of a large upload may have one


def ingest(work: Work, parent: Parent, settings: Settings) -> dict[str, Any]:
    """What the dataset is made of, as `Ingested.to_dict`."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    store = configured_store(settings)
    spec = work["spec"]
    archive = store.fetch(spec["archive_sha256"], Path(work["scratch"]))

    def progress(fraction: float) -> None:
        if parent.should_stop():
            raise StopRequested
        parent.progress("reading", fraction, None)

    processes = len(os.sched_getaffinity(0))
    try:
        with IntakePool(intake_limits(settings), processes) as pool:
            return ingest_archive(
                archive,
                store,
                val_fraction=spec["val_fraction"],
                test_fraction=spec["test_fraction"],
                seed=spec["seed"],
                archive_limits=archive_limits(settings),
                take_in=pool.take_in,
                threads=processes,
                progress=progress,
            ).to_dict()
    except UnusableUpload as unusable:
        named = [one.message for one in unusable.cause.errors[:_NAMED]]
        more = len(unusable.cause.errors) - len(named)
        raise JobFailure(
            FailureReason.invalid_data,
            " ".join([*named, f"And {more} more problems."] if more else named) or unusable.cause.detail,
            "The report names every file that was left out, and why. Mend them and upload again.",
            unusable.report.as_dict(),
        ) from None
    except GraftError as error:
        if error.status >= 500:
            raise
        raise JobFailure(FailureReason.invalid_data, error.detail, "Mend the archive and upload it again.") from None
