"""`fit`: from labelled images and pretrained weights to a model file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from app.vision import ranks
from app.vision.allocation import kept_memory
from app.vision.artefact import save_model
from app.vision.assessment import assess
from app.vision.backbones import Backbone, get_backbone
from app.vision.base_model import BaseModel, graft, read_base_model
from app.vision.batch_norm import share_batch_norms
from app.vision.calibration import fit_temperature
from app.vision.classifier import to_probabilities
from app.vision.config import TrainConfig, settled
from app.vision.errors import OutOfMemory, Stopped, WeightsUnavailable
from app.vision.features import trunk_features
from app.vision.feeds import FeatureFeed, Feed, ImageFeed, seeds_of
from app.vision.gradients import check_shares
from app.vision.imageset import ImageSet
from app.vision.loop import Run, train
from app.vision.losses import make_loss
from app.vision.memory import is_exhaustion
from app.vision.network import Network, build_network, load_trunk, set_trainable
from app.vision.packing import Fetch, own_path
from app.vision.precision import trunk_dtype
from app.vision.preprocessing import Preprocessing
from app.vision.progress import Progress
from app.vision.rate_search import RateSearch, search_rate
from app.vision.rowcache import RowCache
from app.vision.run import FitResult, Observer, Quiet, Sample, check_samples
from app.vision.weights import WeightStore, load_state_dict

# Shares of a run's time on a CPU, measured with default settings on a few hundred photographs.
HEAD_SHARES = {"weights": 0.02, "decoding": 0.38, "features": 0.45, "training": 0.14, "evaluating": 0.01}
IMAGE_SHARES = {"weights": 0.01, "decoding": 0.04, "training": 0.94, "evaluating": 0.01}

SCALING_SAMPLE = 256  # training images whose features set the head's standardisation


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

    Where several processes have joined (`app.vision.ranks`), all call this with the same arguments, those of one
    machine with the same `workdir`. Each does its share of every batch, and of everything else that is long. The first
    one alone writes the model, reports, and needs to have `resume`; all have the result.

    Raises InvalidConfig, InvalidData, WeightsUnavailable, Diverged, OutOfMemory, DamagedArtefact (of `resume`), and
    Stopped when the observer asked for it.
    """
    config = config.resolve()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with reproducible(device), memory_errors(config), kept_memory():
        run, preprocessing = _prepare(config, samples, classes, weights, workdir, observer, device, cache, fetch)
        labels, feed, progress = run.labels, run.feed, run.progress
        found = ranks.agree(search_rate(run)) if config.find_rate else None
        if found is not None:
            run.config = replace(config, learning_rate=found.suggestion)
        position = train(run, resume)
        progress.report("evaluating", 0.0)
        logits = {split: feed.split_logits(split, exact=True) for split in labels if split != "train"}
    config = run.config
    temperature = fit_temperature(logits["val"], labels["val"])
    probabilities = {split: to_probabilities(scores, temperature) for split, scores in logits.items()}
    metrics = {
        split: assess(
            probabilities[split], to_probabilities(scores), labels[split], classes,
            [sample.path.name for sample in samples if sample.split == split], temperature,
        )
        for split, scores in logits.items()
    }  # fmt: skip
    model_path = workdir / "model.safetensors"
    summary = {split: {key: scores[key] for key in ("samples", "accuracy", "log_loss", "macro_f1")}
               for split, scores in metrics.items()}  # fmt: skip
    if ranks.is_first():
        save_model(
            model_path, run.network, config=config, classes=classes, preprocessing=preprocessing, metrics=summary,
            temperature=temperature,
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
        found,
        [*position.notes, *feed.notes],
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
        return search_rate(_prepare(config, samples, classes, weights, workdir, observer, device)[0])


def _prepare(
    config: TrainConfig,
    samples: Sequence[Sample],
    classes: Sequence[str],
    weights: Path | WeightStore,
    workdir: Path,
    observer: Observer,
    device: torch.device,
    cache: RowCache | None = None,
    fetch: Fetch = own_path,
) -> tuple[Run, Preprocessing]:
    """Everything that there is before the first step: the network, decoded images or features, the loss."""
    check_samples(samples, classes)
    if not ranks.is_first():
        observer = Quiet(observer.should_stop)
    workdir.mkdir(parents=True, exist_ok=True)
    progress = Progress(observer, HEAD_SHARES if config.train == "head" else IMAGE_SHARES)
    trunk_dtype(config.precision, device)  # says now what it would say after minutes of decoding
    progress.report("weights", 0.0)
    base = _base_model(config, weights)
    keep_head = base is not None and base.suits_head(classes, config.head)
    network = _starting_network(config, len(classes), weights, base, keep_head).to(device)
    preprocessing = _preprocessing(config, base)
    images = ImageSet(
        samples, preprocessing, cache or RowCache(workdir / "rows"), fetch=fetch,
        progress=lambda done: progress.report("decoding", done), should_stop=observer.should_stop,
    )  # fmt: skip
    labels = images.labels()
    check_shares(config, len(labels["train"]))
    first_here = ranks.neighbours(workdir)[0] == ranks.number()
    feed = _feed(network, images, config, device, progress, observer, first_here)
    if not keep_head and config.train == "head":
        # Not where the trunk learns: dividing by small spreads would magnify its gradients, and SGD would come apart.
        network.head.standardise(feed.spread_features(SCALING_SAMPLE))
    loss = make_loss(config, labels["train"], len(classes), device)
    identity = _identity(config, samples, classes)
    return Run(config, network, feed, labels, loss, workdir, observer, progress, identity), preprocessing


def _base_model(config: TrainConfig, weights: Path | WeightStore) -> BaseModel | None:
    if config.base_model is None:
        return None
    if isinstance(weights, WeightStore):
        raise TypeError("with config.base_model set, `weights` is the path of that model")
    return read_base_model(weights, config)


def _preprocessing(config: TrainConfig, base: BaseModel | None) -> Preprocessing:
    """The base model's own where the input size is its; else the backbone's published one at that size."""
    size = settled(config.input_size)
    if base is not None and base.preprocessing.crop == size:
        return base.preprocessing
    return Preprocessing.for_backbone(get_backbone(config.backbone), size)


def _starting_network(
    config: TrainConfig, classes: int, weights: Path | WeightStore, base: BaseModel | None, keep_head: bool
) -> Network:
    backbone = get_backbone(config.backbone)
    network = build_network(backbone, classes, config.head, seed=config.seed)
    if base is not None:
        graft(network, base, head=keep_head)
    else:
        path = _obtain(weights, backbone)
        try:
            load_trunk(network, backbone, load_state_dict(path, backbone))
        except ValueError as error:
            raise _mismatch(backbone, path, error) from error
    set_trainable(network, config)
    if ranks.count() > 1:
        share_batch_norms(network)
    network.to(memory_format=torch.channels_last)
    return network


def _obtain(weights: Path | WeightStore, backbone: Backbone) -> Path:
    """The file with the weights; of several ranks the first one looks before the others, so that one of them loads."""
    if isinstance(weights, Path):
        return weights
    path = weights.obtain(backbone) if ranks.is_first() else None
    ranks.wait()
    return path or weights.obtain(backbone)


def _mismatch(backbone: Backbone, path: Path, error: ValueError) -> WeightsUnavailable:
    reason = f"{path} holds the weights of another network ({error})"
    return WeightsUnavailable(backbone.name, backbone.weights_file, backbone.weights_url, [path.parent], reason)


def _feed(
    network: Network,
    images: ImageSet,
    config: TrainConfig,
    device: torch.device,
    progress: Progress,
    observer: Observer,
    first_here: bool,
) -> Feed:
    """Features where the trunk is frozen, else images. One rank of a machine makes them; then the others find them."""
    feed: Feed | None = None
    for turn in (True, False):
        stopped = False
        if first_here is turn:
            try:
                feed = _make_feed(network, images, config, device, progress, observer)
            except Stopped:
                stopped = True
        if ranks.any_of(stopped):
            raise Stopped(checkpoint_written=False)
    assert feed is not None
    return feed


def _make_feed(
    network: Network,
    images: ImageSet,
    config: TrainConfig,
    device: torch.device,
    progress: Progress,
    observer: Observer,
) -> Feed:
    if config.train == "head":
        features = trunk_features(
            network, images, config, device,
            progress=lambda done: progress.report("features", done), should_stop=observer.should_stop,
        )  # fmt: skip
        return FeatureFeed(network.head, features, device)
    seeds = {split: seeds_of(keys) for split, keys in images.keys.items()}
    return ImageFeed(network, images.packs(), seeds, images.preprocessing, config, device)


def _identity(config: TrainConfig, samples: Sequence[Sample], classes: Sequence[str]) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued. File paths may differ: another machine may go on."""
    digest = hashlib.sha256("\n".join(f"{sample.label} {sample.split}" for sample in samples).encode())
    settings = config.to_dict()
    del settings["loader_workers"]  # changes the pace alone
    return {"config": settings, "classes": list(classes), "samples": digest.hexdigest()}


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
