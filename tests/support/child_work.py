"""What a child does in a test, in place of its kind's own work or around it: each function is a `JobType.run`.

A test hands `doing(TRAIN, rest)` to a `Child`, or to a worker in this process; a worker of another process finds such
kinds by `GRAFT_JOB_TYPES`. `GRAFT_TEST_MARKS` is a folder in which the test and the child meet.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.core.settings import Settings
from app.jobs.types import JobType, JobTypes
from worker.child.parent import Parent
from worker.processes.messages import Work

Run = Callable[[Work, Parent, Settings], Any]


def doing(kind: JobType, run: Run | str) -> JobType:
    """Return the kind with another function for its children to call."""
    return replace(kind, run=run if isinstance(run, str) else f"{__name__}:{run.__name__}")


def kinds_with(*others: JobType) -> JobTypes:
    """Return all kinds, these in place of those of their names."""
    from app.work import JOB_TYPES  # with the services, which a child has no use for

    kinds = JobTypes()
    kinds.register(*JOB_TYPES)
    for one in others:
        kinds.replace(one)
    return kinds


def marks() -> Path:
    return Path(os.environ["GRAFT_TEST_MARKS"])


def rest(work: Work, parent: Parent, settings: Settings) -> None:
    """Do nothing for a long time, and say once that it has begun."""
    parent.progress("resting", 0.0, None)
    while True:
        time.sleep(600)


def rest_in_c(work: Work, parent: Parent, settings: Settings) -> None:
    """Hang in a C call with the interpreter's lock, so that neither Python code runs nor a signal but KILL helps."""
    parent.progress("resting", 0.0, None)
    while True:
        ctypes.PyDLL(None).sleep(600)


def tell(work: Work, parent: Parent, settings: Settings) -> None:
    """Say ten times a second that it lives."""
    while True:
        parent.progress("alive", 0.0, None)
        time.sleep(0.1)


STUBBORN = (
    "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
)


def start_one_that_ignores_term(work: Work, parent: Parent, settings: Settings) -> None:
    """Start a process that ignores TERM and holds the child's pipes open, and wait with it."""
    subprocess.Popen([sys.executable, "-c", STUBBORN, str(marks() / "pids")])
    rest(work, parent, settings)


# Processes that are hard to end: each runs STUBBORN, the last argument.
RUNAWAYS = {
    "ignores TERM in a session of its own": "os.setsid(); os.execv(sys.executable, REST)",
    "has lost its parent": "os.setsid()\nif os.fork() == 0: os.setsid(); os.execv(sys.executable, REST)",
    "has dropped its environment": "os.setsid(); os.execve(sys.executable, REST, {})",
}


def run_away(work: Work, parent: Parent, settings: Settings) -> None:
    """Start one of each kind of process that is hard to end, and rest."""
    _start_runaways()
    rest(work, parent, settings)


def run_away_and_rest_in_c(work: Work, parent: Parent, settings: Settings) -> None:
    _start_runaways()
    rest_in_c(work, parent, settings)


def _start_runaways() -> None:
    stubborn = [sys.executable, "-c", STUBBORN, str(marks() / "pids")]
    for program in RUNAWAYS.values():
        subprocess.Popen([sys.executable, "-c", f"import os, sys\nREST = {stubborn!r}\n{program}\n"])


def ingest_and_print(work: Work, parent: Parent, settings: Settings) -> Any:
    """Read an upload after printing what looks like a message, as a library might."""
    from worker.kinds.ingest import ingest

    print('{"kind": "result", "body": {}}', flush=True)
    os.write(1, b"straight to the descriptor\n")
    return ingest(work, parent, settings)


def ingest_and_hold(work: Work, parent: Parent, settings: Settings) -> Any:
    """Read an upload, and hand nothing over while the file `hold` is there; `reached` then has the child's id."""
    from worker.kinds.ingest import ingest

    found = ingest(work, parent, settings)
    (marks() / "reached").write_text(str(os.getpid()))
    while (marks() / "hold").exists():
        time.sleep(0.02)
    return found


def train_with_a_checkpoint_an_epoch(work: Work, parent: Parent, settings: Settings) -> Any:
    from app.vision.training import loop
    from worker.kinds.train import train

    loop.REST_S = 0.0
    return train(work, parent, settings)


def train_and_be_killed(work: Work, parent: Parent, settings: Settings) -> Any:
    """Train with a checkpoint at each step. The steps of `GRAFT_TEST_STEPS` kill the child, once each, before theirs is
    written; the file `taken` lists all that were taken."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    from app.vision.training import loop
    from worker.kinds.train import train

    loop.LONGEST_S = 0.0
    steps = [int(one) for one in os.environ["GRAFT_TEST_STEPS"].split()]
    done = [int(path.name) for path in marks().glob("[0-9]*")]
    taken = max(done, default=1) - 1

    def count(optimizer: object, *_: object) -> None:
        nonlocal taken
        if type(optimizer).__name__ == "LBFGS":  # fits the temperature, when training is over
            return
        taken += 1
        with (marks() / "taken").open("a") as file:
            file.write(f"{taken} ")
        if taken in steps and taken not in done:
            (marks() / str(taken)).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    register_optimizer_step_post_hook(count)
    return train(work, parent, settings)


def _slowly(owner: type, method: str) -> None:
    """Let each call of the method take a second while the file `slow` is there, as it does with large images."""
    original = getattr(owner, method)

    def slowly(*arguments: Any, **more: Any) -> Any:
        if (marks() / "slow").exists():
            time.sleep(1)
        return original(*arguments, **more)

    setattr(owner, method, slowly)


def train_with_slow_decoding(work: Work, parent: Parent, settings: Settings) -> Any:
    from app.vision.images.preprocessing import Preprocessing
    from worker.kinds.train import train

    _slowly(Preprocessing, "load")
    return train(work, parent, settings)


def train_with_slow_features(work: Work, parent: Parent, settings: Settings) -> Any:
    from app.vision.data.feeds import ImageFeed
    from worker.kinds.train import train

    _slowly(ImageFeed, "exact_features")
    return train(work, parent, settings)


def predict_and_wait(work: Work, parent: Parent, settings: Settings) -> Any:
    """Predict in batches of four, write a line into `log` for each, and before the third one wait until the file `gate`
    is there or the parent asks to stop."""
    from app.vision.engines.model import TrainedModel
    from worker.kinds.predict import predict

    answer, calls = TrainedModel.answer, []

    def waits(model: TrainedModel, images: Any) -> Any:
        calls.append(1)
        with (marks() / "log").open("a") as log:
            log.write("batch\n")
        while len(calls) == 3 and not (marks() / "gate").exists() and not parent.should_stop():
            time.sleep(0.01)
        return answer(model, images)

    TrainedModel.answer = waits  # type: ignore[method-assign]
    return predict(work, parent, settings, batch_size=4, keep_every=float(os.environ["GRAFT_TEST_KEEP_EVERY"]))
