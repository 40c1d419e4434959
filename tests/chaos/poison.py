"""Jobs that kill whoever runs them: a hook in the child's interpreter that goes by the job's seed."""

import os
from pathlib import Path

from tests.support.images import REPOSITORY

KILLS_ITSELF = 4_000_000_001  # the kernel's answer to a process that takes too much memory
KILLS_ITS_WORKER = 4_000_000_002
SEEDS = (KILLS_ITSELF, KILLS_ITS_WORKER)

_HOOK = f"""
import sys

if "worker.child" in sys.orig_argv and "train" in sys.orig_argv:
    import os, signal
    import worker.processes.messages

    decode = worker.processes.messages.decode

    def poisoned(line):
        work = decode(line)
        if work["spec"].get("seed") == {KILLS_ITSELF}:
            os.kill(os.getpid(), signal.SIGKILL)
        if work["spec"].get("seed") == {KILLS_ITS_WORKER}:
            os.kill(os.getppid(), signal.SIGKILL)
        return work

    worker.processes.messages.decode = poisoned
"""


def environment(home: Path) -> dict[str, str]:
    """Variables under which every Python process reads the hook before its own code."""
    folder = home / "hooks"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HOOK)
    paths = [str(folder), str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}
