"""A child's work on an ingestion job: read the archive or what is named instead, verify every image, freeze."""

import os
import resource
from pathlib import Path
from typing import Any

from app.core.errors import GraftError, Invalid
from app.core.settings import Settings
from app.datasets.ingestion import UnusableUpload, ingest_from
from app.datasets.intake.limits import archive_limits, intake_limits
from app.datasets.intake.pool import IntakePool
from app.datasets.sources.references import FORMATS, open_source
from app.datasets.sources.source import ArchiveSource, Budget, Source
from app.ingestions.schemas import IngestSpec
from app.jobs.states import FailureReason
from app.storage.configured import configured_store
from worker.child.parent import JobFailure, Parent, StopRequested, read_spec
from worker.processes.messages import Work

# Of address space, for labels and the archive's directory; images are read in processes of their own.
_MEMORY_BYTES = 8 * 2**30
_AT_ONCE = 8  # files that are fetched from elsewhere: waiting for them takes no processor
_NAMED = 5  # problems that a failure spells out; every class of a large upload may have one


def ingest(work: Work, parent: Parent, settings: Settings) -> dict[str, Any]:
    """Return what the dataset is made of, as `Ingested.to_dict`."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    store = configured_store(settings)
    spec = read_spec(IngestSpec, work["spec"])
    source = _source(spec, store.fetch(spec.archive_sha256, Path(work["scratch"])), settings)

    def progress(fraction: float) -> None:
        if parent.should_stop():
            raise StopRequested
        parent.progress("reading", fraction, None)

    processes = len(os.sched_getaffinity(0))
    try:
        with IntakePool(intake_limits(settings), processes) as pool:
            return ingest_from(
                source,
                store,
                val_fraction=spec.val_fraction,
                test_fraction=spec.test_fraction,
                seed=spec.seed,
                take_in=pool.take_in_all,
                threads=max(processes, _AT_ONCE) if source.apart else processes,
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
        raise JobFailure(FailureReason.invalid_data, error.detail, "Mend that and send it again.") from None


def _source(spec: IngestSpec, sent: Path, settings: Settings) -> Source:
    if spec.format is None or spec.format not in FORMATS:
        return ArchiveSource(sent, archive_limits(settings))
    most = settings.max_expanded_bytes if spec.max_bytes is None else min(spec.max_bytes, settings.max_expanded_bytes)
    try:
        return open_source(spec.format, sent.read_bytes(), settings, Budget(most))
    except Invalid as error:  # the operator allows it no longer, or this worker was never told
        hint = "Ask the operator to allow it for every worker."
        raise JobFailure(FailureReason.invalid_data, error.detail, hint) from None
