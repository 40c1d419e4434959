"""`fit`: from labelled images and pretrained weights to a model file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from app.vision.artefacts.model_file import save_model
from app.vision.backbones.weights import WeightStore
from app.vision.data.packing import Fetch, own_path
from app.vision.data.rowcache import RowCache
from app.vision.errors import OutOfMemory
from app.vision.runtime import ranks
from app.vision.runtime.allocation import kept_memory
from app.vision.runtime.memory import is_exhaustion
from app.vision.scores.calibration import fit_temperature
from app.vision.settings.config import TrainConfig
from app.vision.tasks.classify.classifier import to_probabilities
from app.vision.tasks.classify.evaluation import assess
from app.vision.tasks.classify.held_out import look_at_held_out
from app.vision.tasks.classify.selective_prediction import Verdicts, decisions_of, never_accepted
from app.vision.training.loop import train
from app.vision.training.preparation import prepare
from app.vision.training.rate_search import RateSearch, search_rate
from app.vision.training.run import FitResult, Observer, Sample


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
) -> FitResult:
    """Train a classifier and write it to `workdir`/model.safetensors.

    The same configuration, samples and machine give the same file bit for bit, whether or not the run was stopped and
    resumed on the way. (On CUDA this also needs CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment of the process.)
    With `config.base_model` set, `weights` is the path of that model: the run starts from its trunk and, where classes,
    layers and pooling are the same, from its head. Decoded images, about 3 · resize² bytes each, and the features of a
    frozen trunk are kept in `cache` for later runs; without one they lie in `workdir`, which is the caller's to remove.
    `fetch` gives the file of a sample whose pixels are not in the cache, and is called from several threads; a sample
    that says its `sha256` needs no file otherwise.

    Where several processes have joined (`runtime.ranks`), all call this with the same arguments, those of one
    machine with the same `workdir`. Each does its share of every batch, and of everything else that is long. The first
    one alone writes the model, reports, and needs to have `resume`; all have the result.

    Raises InvalidConfig, InvalidData, WeightsUnavailable, Diverged, OutOfMemory, DamagedArtefact (of `resume`), and
    Stopped when the observer asked for it.
    """
    config = config.resolve()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with reproducible(device), memory_errors(config), kept_memory():
        run, preprocessing = prepare(config, samples, classes, weights, workdir, observer, device, cache, fetch)
        labels, feed, progress = run.labels, run.feed, run.progress
        rates = ranks.agree(search_rate(run)) if config.find_rate else None
        if rates is not None:
            run.config = replace(config, learning_rate=rates.suggestion)
        position = train(run, resume)
        progress.report("evaluating", 0.0)
        found = look_at_held_out(run)
    config = run.config
    temperature = fit_temperature(found.logits["val"], labels["val"])
    probabilities = {split: to_probabilities(logits, temperature) for split, logits in found.logits.items()}
    metrics = {
        split: assess(
            probabilities[split], to_probabilities(logits), labels[split], classes,
            [sample.path.name for sample in samples if sample.split == split], temperature, found.scores.get(split),
        )
        for split, logits in found.logits.items()
    }  # fmt: skip
    decisions, shortfalls = None, []
    if config.target_precision is not None:
        verdicts = {split: Verdicts.of(rows, labels[split], found.scores.get(split))
                    for split, rows in probabilities.items()}  # fmt: skip
        decisions = decisions_of(verdicts, classes, config.target_precision)
        shortfalls = never_accepted(decisions)
    model_path = workdir / "model.safetensors"
    summary = {split: {key: scores[key] for key in ("samples", "accuracy", "log_loss", "macro_f1")}
               for split, scores in metrics.items()}  # fmt: skip
    if ranks.is_first():
        save_model(
            model_path, run.network, config=config, classes=classes, preprocessing=preprocessing, metrics=summary,
            temperature=temperature, novelty=found.novelty, decisions=decisions,
        )  # fmt: skip
    ranks.wait()
    progress.report("evaluating", 1.0)
    return FitResult(
        model_path,
        metrics,
        position.history,
        position.best_epoch + 1,
        preprocessing,
        config,
        probabilities,
        temperature,
        rates,
        [*position.notes, *feed.notes, *shortfalls],
        found.scores,
        decisions,
    )


def find_rate(
    config: TrainConfig,
    samples: Sequence[Sample],
    classes: Sequence[str],
    *,
    weights: Path | WeightStore,
    workdir: Path,
    observer: Observer,
) -> RateSearch:
    """Suggest a learning rate for `fit` with the same arguments, by a range test: see `search_rate`."""
    config = replace(config, find_rate=True, learning_rate=None).resolve()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with reproducible(device), memory_errors(config), kept_memory():
        return search_rate(prepare(config, samples, classes, weights, workdir, observer, device)[0])


@contextmanager
def reproducible(device: torch.device) -> Iterator[None]:
    """Deterministic kernels, and the process's random state left as it was found."""
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
