"""`fit`: from labelled images and pretrained weights to a model file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from app.vision.artefacts.base_model import read_base_model
from app.vision.artefacts.model_file import save_model
from app.vision.backbones.weights import WeightStore
from app.vision.data.packing import Fetch, own_path
from app.vision.data.rowcache import RowCache
from app.vision.data.samples import Sample
from app.vision.errors import OutOfMemory
from app.vision.runtime import ranks
from app.vision.runtime.allocation import kept_memory
from app.vision.runtime.memory import is_exhaustion
from app.vision.runtime.observer import Observer, SilentObserver
from app.vision.runtime.precision import trunk_dtype
from app.vision.runtime.progress import Progress
from app.vision.settings.config import TrainConfig
from app.vision.tasks import default_task, part_of_task
from app.vision.tasks.task import Inputs, Task
from app.vision.training.loop import train
from app.vision.training.rate_search import RateSearch, search_rate
from app.vision.training.result import FitResult

# Shares of a run's time on a CPU, measured with default settings on a few hundred photographs.
HEAD_SHARES = {"weights": 0.02, "decoding": 0.38, "features": 0.45, "training": 0.14, "evaluating": 0.01}
IMAGE_SHARES = {"weights": 0.01, "decoding": 0.04, "training": 0.94, "evaluating": 0.01}


def fit(
    config: TrainConfig,
    samples: Sequence[Sample],
    classes: Sequence[str],
    *,
    weights: Path | WeightStore,
    workdir: Path,
    observer: Observer,
    resume: Path | None = None,
    cache: RowCache | None = None,
    fetch: Fetch = own_path,
    task: str | None = None,
) -> FitResult:
    """Train a model for a task of `app.vision.tasks.TASKS`, and write it to `workdir`/model.safetensors.

    The same configuration, samples and machine give the same file bit for bit, whether or not the run was stopped and
    resumed on the way. (On CUDA this also needs CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment of the process.)
    With `config.base_model` set, `weights` is the path of that model: the run starts from its trunk and, where the task
    finds it fitting, from its head. Decoded images, about 3 · resize² bytes each, and the features of a frozen trunk
    are kept in `cache` for later runs; without one they lie in `workdir`, which is the caller's to remove. `fetch`
    gives the file of a sample whose pixels are not in the cache, and is called from several threads; a sample that says
    its `sha256` needs no file otherwise.

    Where several processes have joined (`runtime.ranks`), all call this with the same arguments, those of one
    machine with the same `workdir`. Each does its share of every batch, and of everything else that is long. The first
    one alone writes the model, reports, and needs to have `resume`; all have the result.

    Raises InvalidConfig, InvalidData, WeightsUnavailable, Diverged, OutOfMemory, DamagedArtefact (of `resume`), and
    Stopped when the observer asked for it.
    """
    config = config.resolve()
    learnt = _task(task)
    with _computing(config) as device:
        inputs = _inputs(config, samples, classes, weights, workdir, observer, device, cache, fetch)
        run = learnt.prepare(inputs)
        rates = ranks.agree(search_rate(learnt, run)) if config.find_rate else None
        if rates is not None:
            run.config = replace(config, learning_rate=rates.suggestion)
        position = train(learnt, run, resume)
        run.progress.report("evaluating", 0.0)
        run.history, run.best_epoch = position.history, position.best_epoch + 1
        finished = learnt.finish(run)
    path = workdir / "model.safetensors"
    if ranks.is_first():
        save_model(path, run.network, finished.document, finished.tensors, task=learnt.name)
    ranks.wait()
    run.progress.report("evaluating", 1.0)
    return FitResult(
        model_path=path,
        task=learnt.name,
        config=run.config,
        preprocessing=run.preprocessing,
        history=run.history,
        best_epoch=run.best_epoch,
        finished=finished,
        rate_search=rates,
        notes=[*position.notes, *run.feed.notes, *finished.notes],
    )


def find_rate(
    config: TrainConfig,
    samples: Sequence[Sample],
    classes: Sequence[str],
    *,
    weights: Path | WeightStore,
    workdir: Path,
    observer: Observer,
    task: str | None = None,
) -> RateSearch:
    """Suggest a learning rate for `fit` with the same arguments, by a range test: see `search_rate`."""
    config = replace(config, find_rate=True, learning_rate=None).resolve()
    learnt = _task(task)
    with _computing(config) as device:
        inputs = _inputs(config, samples, classes, weights, workdir, observer, device, None, own_path)
        return search_rate(learnt, learnt.prepare(inputs))


def _task(name: str | None) -> Task[Any]:
    task: Task[Any] = part_of_task("task", name or default_task()).TASK
    return task


def _inputs(
    config: TrainConfig,
    samples: Sequence[Sample],
    classes: Sequence[str],
    weights: Path | WeightStore,
    workdir: Path,
    observer: Observer,
    device: torch.device,
    cache: RowCache | None,
    fetch: Fetch,
) -> Inputs:
    """Return what a task prepares its run from."""
    if not ranks.is_first():
        observer = SilentObserver(observer.should_stop)
    trunk_dtype(config.precision, device)  # says now what it would say after minutes of decoding
    workdir.mkdir(parents=True, exist_ok=True)
    progress = Progress(observer, HEAD_SHARES if config.train == "head" else IMAGE_SHARES)
    progress.report("weights", 0.0)
    base = None
    if config.base_model is not None:
        if isinstance(weights, WeightStore):
            raise TypeError("with config.base_model set, `weights` is the path of that model")
        base = read_base_model(weights, config)
    cache = cache or RowCache(workdir / "rows")
    return Inputs(config, samples, classes, weights, base, workdir, observer, progress, device, cache, fetch)


@contextmanager
def _computing(config: TrainConfig) -> Iterator[torch.device]:
    """Give the device that a run computes on, reproducibly and with memory kept; memory errors become OutOfMemory."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with reproducible(device), memory_errors(config), kept_memory():
        yield device


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Compute with deterministic kernels, and leave the process's random state as it was found."""
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            cudnn.deterministic, cudnn.benchmark = True, False
            yield
        finally:
            cudnn.deterministic, cudnn.benchmark = before


@contextmanager
def memory_errors(config: TrainConfig) -> Iterator[None]:
    """Translate the ways in which memory runs out into OutOfMemory."""
    try:
        yield
    except Exception as error:
        if not is_exhaustion(error):
            raise
        raise OutOfMemory(config.batch_size or 0) from error
