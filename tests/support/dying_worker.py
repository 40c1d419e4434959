"""A kind of job whose worker dies when the model is in the store and nothing of it in the database, once."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.jobs.orm import Job
from app.trainings.spec import TrainResult
from app.trainings.type import TRAIN


def _dies(session: Session, job: Job, body: dict[str, Any]) -> TrainResult:
    Path(os.environ["GRAFT_TEST_MARKS"], "died").touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


DIES = replace(TRAIN, finish=_dies)
