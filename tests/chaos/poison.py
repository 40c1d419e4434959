"""Jobs that kill whoever runs them: trainings whose children go by the job's seed."""

import os
import signal
from dataclasses import replace
from typing import Any

from app.core.settings import Settings
from app.trainings.type import TRAIN
from tests.support.images import REPOSITORY
from worker.child.parent import Parent
from worker.processes.messages import Work

KILLS_ITSELF = 4_000_000_001  # the kernel's answer to a process that takes too much memory
KILLS_ITS_WORKER = 4_000_000_002
SEEDS = (KILLS_ITSELF, KILLS_ITS_WORKER)


def train(work: Work, parent: Parent, settings: Settings) -> dict[str, Any]:
    """Train, unless the seed says who is to die."""
    if work["spec"].get("seed") == KILLS_ITSELF:
        os.kill(os.getpid(), signal.SIGKILL)
    if work["spec"].get("seed") == KILLS_ITS_WORKER:
        os.kill(os.getppid(), signal.SIGKILL)
    from worker.kinds.train import train as really

    return really(work, parent, settings)


POISONED = replace(TRAIN, run=f"{__name__}:train")


def environment() -> dict[str, str]:
    """Return variables under which trainings are such ones."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths), "GRAFT_JOB_TYPES": f"{__name__}:POISONED"}
