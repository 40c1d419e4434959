"""Profile a benchmark on a GPU: `python -m bench.gpu_profile frozen_trunk --workers 4 --data DATA`.

Takes the name of a benchmark of training, or serve_gpu, and that benchmark's own options. Our side runs once to warm
up and once under torch's profiler; the other side does not run. Prints one JSON line: the seconds of the second run,
the share of them in which the GPU computes (on a machine without one, the processor), what took longest there, and
what took longest in the operations that Python asks for.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from app.vision.data.imagefolder import read_image_folder
from app.vision.training.fit import fit
from bench.inputs import Quiet, image_folder, weights_file
from bench.rounds import clock, device, emit

TRAININGS = ("frozen_trunk", "full_finetune", "epoch_loop")
NAMES = (*TRAININGS, "serve_gpu")
SHOWN = 12  # entries of either list
SERVED_SECONDS = 2.0


def training(name: str, options: argparse.Namespace, scratch: Path) -> Callable[[], object]:
    """Return a function that trains once, as our side of that benchmark does."""
    samples, classes = read_image_folder(image_folder(options.data, scratch))
    config = importlib.import_module(f"bench.{name}").configuration(options, 0)
    weights = weights_file(options.backbone, options.weights)

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=scratch) as workdir:
            fit(config, samples, classes, weights=weights, workdir=Path(workdir), observer=Quiet())

    return run


def serving(options: argparse.Namespace, scratch: Path) -> Callable[[], object]:
    """Return a function that decodes and classifies the held-out photographs for two seconds, as a service does."""
    from app.predictions.serving.engine_making import make_engine
    from app.vision.artefacts.model_file import load_model
    from app.vision.settings.config import TrainConfig
    from bench.serve_gpu import ENGINE, REQUEST
    from bench.served import in_process

    samples, classes = read_image_folder(image_folder(options.data, scratch))
    images = [sample.path.read_bytes() for sample in samples if sample.split == "val"]
    weights = weights_file(options.backbone, options.weights)
    config = TrainConfig(options.backbone, input_size=options.size, epochs=options.epochs)
    work = scratch / "work"
    work.mkdir()
    fitted = fit(config, samples, classes, weights=weights, workdir=work, observer=Quiet())
    classifier = load_model(fitted.model_path)

    def unneeded(*_: Any) -> Any:
        raise SystemExit(f"{ENGINE} asks for files or images, which this profile has not")

    if device().type == "cuda":
        classifier.engine = make_engine(ENGINE, classifier, unneeded, unneeded)
    return lambda: in_process(classifier, images, SERVED_SECONDS, REQUEST)


def profiled(run: Callable[[], object]) -> dict[str, Any]:
    """Run twice, the second time under the profiler; return where that time went, in milliseconds."""
    run()
    activities = [ProfilerActivity.CPU]
    on_gpu = device().type == "cuda"
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, acc_events=True) as found:
        seconds = clock(run)
    averages = found.key_averages()
    operations = [(one.key, one.self_cpu_time_total / 1000, one.count) for one in averages]
    kernels = [(one.key, one.self_device_time_total / 1000, one.count) for one in averages] if on_gpu else operations
    return {
        "seconds": round(seconds, 2),
        "busy": round(sum(ms for _, ms, _ in kernels) / 1000 / seconds, 3),
        "kernels": _longest(kernels),
        "operations": _longest(operations),
    }


def _longest(entries: list[tuple[str, float, int]]) -> list[dict[str, Any]]:
    ordered = sorted(entries, key=lambda entry: -entry[1])[:SHOWN]
    return [{"name": name, "ms": round(ms, 1), "calls": calls} for name, ms, calls in ordered if ms > 0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Profile the benchmark that is named first, with the options that follow."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(__doc__)
        return
    name, rest = given[0], given[1:]
    if name not in NAMES:
        raise SystemExit(f"{name}: there is no profile of this; use {', '.join(NAMES)}.")
    options = importlib.import_module(f"bench.{name}").options_parser().parse_args(rest)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        run = serving(options, Path(scratch)) if name == "serve_gpu" else training(name, options, Path(scratch))
        figures = profiled(run)
    emit("gpu_profile", of=name, **figures, whole_seconds=round(time.monotonic() - began, 1), torch=torch.__version__)


if __name__ == "__main__":
    main()
