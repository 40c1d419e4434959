"""Run everything that needs a GPU, in eight minutes: `make gpu`, or `python -m bench.gpu --data DATA`.

Runs the tests that only a GPU can pass, the six GPU figures of docs/benchmarks.md, and a profile of each figure that
misses its aim. Each step has a time limit of its own and the whole has one too, so that a step that hangs costs only
itself; what was left out for time is said. Prints one table and writes it to gpu.md and gpu.json in `$OUT`, or in
gpu-report/ where that is not set. Where there is no GPU it says so, runs nothing, and ends with 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.checkouts import HERE, this_checkout

BUDGET = 480.0  # seconds for everything
LEAST = 12.0  # seconds in which no step is worth starting
ENDS_WITHIN = 5.0  # seconds from asking a step to end to killing it
TAIL = 3000  # characters of a failed step's output that are kept


@dataclass(frozen=True)
class Step:
    """Hold one command and the seconds that it may take; `data` says whether it is given the photographs."""

    name: str
    module: str
    options: tuple[str, ...]
    limit: float
    data: bool = True

    @property
    def profiled(self) -> tuple[str, ...]:
        """Return the benchmark's name and options, as bench.gpu_profile takes them."""
        return (self.module.removeprefix("bench."), *self.options)


TESTS = Step("tests", "pytest", ("-rs", "-p", "no:cacheprovider", "tests/vision/test_gpu.py"), 130.0, data=False)
FIGURES = (
    Step("full_finetune", "bench.full_finetune", ("--epochs", "3", "--workers", "8"), 70.0),
    Step("frozen_trunk", "bench.frozen_trunk", ("--workers", "4"), 75.0),
    Step("frozen_trunk, two views", "bench.frozen_trunk", ("--workers", "4", "--views", "2"), 75.0),
    Step("epoch_loop", "bench.epoch_loop", (), 45.0),
    Step("epoch_loop, batches of 128", "bench.epoch_loop", ("--batch", "128"), 45.0),
    Step("serve_gpu", "bench.serve_gpu", ("--seconds", "4"), 150.0),
)
PROFILE_LIMIT = 40.0


@dataclass
class Outcome:
    """Say how a step ended: "passed", "failed", "met", "missed", "out of time" or "skipped"; `line` is its figures."""

    step: str
    state: str
    seconds: float = 0.0
    line: dict[str, Any] = field(default_factory=dict)
    said: str = ""


Run = Callable[[Step, Sequence[str], float], tuple[int | None, str, str]]


def run_step(step: Step, options: Sequence[str], limit: float) -> tuple[int | None, str, str]:
    """Run the step; return its exit code, None where the limit ended it, its stdout, and the end of all it said."""
    checkout = this_checkout()
    # tests/vision/test_gpu.py compares bit by bit, as trainings do, which set this for themselves.
    environment = checkout.environment(PYTHONUNBUFFERED="1", CUBLAS_WORKSPACE_CONFIG=":4096:8")
    process = subprocess.Popen(
        checkout.module(step.module, *options),
        cwd=HERE,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        # An interrupt first: a benchmark then stops the service that it has started.
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDS_WITHIN)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        return None, out, (out + err)[-TAIL:]
    return process.returncode, out, (out + err)[-TAIL:]


class Report:
    """Keep the outcomes so far, and write both files after each, so that a killed run leaves what it has."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder, self.about = folder, about
        self.outcomes: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {"machine": self.about, "steps": [asdict(one) for one in self.outcomes]}
        (self.folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
        (self.folder / "gpu.md").write_text(self.table())

    def table(self) -> str:
        """Return the machine and a row for each step, as Markdown."""
        about = ", ".join(f"{name} {value}" for name, value in self.about.items())
        lines = [f"{about}", "", "| step | state | printed | aim | seconds |", "| --- | --- | --- | --- | --- |"]
        lines += [
            f"| {one.step} | {one.state} | {printed(one)} | {one.line.get('target', '')} | {one.seconds:.0f} |"
            for one in self.outcomes
        ]
        return "\n".join(lines) + "\n"


def printed(outcome: Outcome) -> str:
    """Return in a few words what a step found, for its cell of the table."""
    line = outcome.line
    if "kernels" in line:
        top = "; ".join(f"{one['name'][:40]} {one['ms']} ms in {one['calls']}" for one in line["kernels"][:4])
        return f"the GPU computes {line['busy']:.0%} of {line['seconds']} s. {top}"
    if "ratio" in line:
        low, high = line["ratio_of_rounds"]
        return f"{line['ratio']} ({low} to {high})"
    return " ".join(outcome.said.split()[-30:]).replace("|", "/")


def run_all(report: Report, data: Sequence[str], budget: float, run: Run = run_step) -> None:
    """Run every step that the time allows; what is left out is in the report, too."""
    ends = time.monotonic() + budget

    def one(step: Step, name: str, options: Sequence[str]) -> Outcome:
        began = time.monotonic()
        left = ends - began
        if left < LEAST:
            outcome = Outcome(name, "skipped", said="no time was left")
        else:
            limit = min(step.limit, left - ENDS_WITHIN)
            code, out, said = run(step, options, limit)
            line = next((json.loads(text) for text in out.splitlines() if text.startswith('{"bench"')), {})
            outcome = Outcome(name, _state(code, line), time.monotonic() - began, line, said)
        report.add(outcome)
        print(f"{name}: {outcome.state} {printed(outcome)}", file=sys.stderr, flush=True)
        return outcome

    one(TESTS, TESTS.name, TESTS.options)
    found = [(step, one(step, step.name, [*step.options, *data])) for step in FIGURES]
    for step, outcome in found:
        if outcome.state == "missed":
            profile = Step(step.name, "bench.gpu_profile", step.profiled, PROFILE_LIMIT)
            one(profile, f"profile of {step.name}", [*profile.options, *data])


def _state(code: int | None, line: dict[str, Any]) -> str:
    if code is None:
        return "out of time"
    if "met" in line:
        return "met" if line["met"] else "missed"
    return "failed" if code else "passed"


def machine() -> dict[str, Any] | None:
    """Return the GPU's name, its memory, the driver and the versions in use; None where there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    properties = torch.cuda.get_device_properties(0)
    return {
        "GPU": properties.name,
        "GiB": round(properties.total_memory / 2**30, 1),
        "driver": driver,
        "CUDA": torch.version.cuda,
        "torch": torch.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "commit": this_checkout().description(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything; return 1 where a test failed or a benchmark broke. A missed aim is reported, and no failure."""
    from tests.support.images import hymenoptera

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=hymenoptera(), help="photographs; generated where there are none")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="SECONDS")
    given = parser.parse_args(arguments)
    about = machine()
    if about is None:
        print("There is no GPU here: nothing run.")
        return 0
    about["data"] = given.data.name if given.data else "generated"
    report = Report(Path(os.environ.get("OUT") or "gpu-report"), about)
    run_all(report, ["--data", str(given.data.resolve())] if given.data else [], given.budget)
    print(report.table())
    return any(one.state in ("failed", "out of time") for one in report.outcomes)


if __name__ == "__main__":
    sys.exit(main())
