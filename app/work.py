"""Floor 7: the kinds of job that there are. A new one is a line here, its domain package and its worker file."""

import pkgutil

from app.core.settings import Settings
from app.ingestions.type import INGEST
from app.jobs.types import KNOWN, JobType
from app.predictions.batch.type import PREDICT
from app.trainings.type import TRAIN

JOB_TYPES: tuple[JobType, ...] = (TRAIN, INGEST, PREDICT)

KNOWN.register(*JOB_TYPES)


def register_further(settings: Settings) -> None:
    """Register the kinds that an operator adds or replaces: `GRAFT_JOB_TYPES`, of the API and of every worker.

    Raises ValueError where one of them is no `JobType` that can be imported.
    """
    for name in filter(None, map(str.strip, settings.job_types.split(","))):
        try:
            found = pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"GRAFT_JOB_TYPES: {name!r} cannot be imported ({error}); use package.module:NAME"
            ) from error
        if not isinstance(found, JobType):
            raise ValueError(f"GRAFT_JOB_TYPES: {name!r} is a {type(found).__name__}; name a JobType")
        KNOWN.replace(found)
