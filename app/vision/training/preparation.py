"""What comes before the first step of a run: the starting network, its images or features, and the loss."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from app.vision.artefacts.base_model import BaseModel, graft, read_base_model
from app.vision.backbones.catalogue import Backbone, get_backbone
from app.vision.backbones.weights import WeightStore, load_state_dict
from app.vision.data.features import trunk_features
from app.vision.data.feeds import FeatureFeed, Feed, ImageFeed, seeds_of
from app.vision.data.imageset import ImageSet
from app.vision.data.packing import Fetch, own_path
from app.vision.data.rowcache import RowCache
from app.vision.errors import Stopped, WeightsUnavailable
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.batch_norm import share_batch_norms
from app.vision.networks.network import Network, build_network, load_trunk, set_trainable
from app.vision.runtime import ranks
from app.vision.runtime.precision import trunk_dtype
from app.vision.settings.config import TrainConfig, filled_in
from app.vision.tasks.classify.losses import make_loss
from app.vision.training.gradients import check_shares
from app.vision.training.loop import Run
from app.vision.training.progress import Progress
from app.vision.training.run import Observer, Quiet, Sample, check_samples

# Shares of a run's time on a CPU, measured with default settings on a few hundred photographs.
HEAD_SHARES = {"weights": 0.02, "decoding": 0.38, "features": 0.45, "training": 0.14, "evaluating": 0.01}
IMAGE_SHARES = {"weights": 0.01, "decoding": 0.04, "training": 0.94, "evaluating": 0.01}

SCALING_SAMPLE = 256  # training images whose features set the head's standardisation


def prepare(
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
    """Everything that there is before the first step: the network, decoded images or features, the loss.

    Arguments and errors are those of `app.vision.training.fit.fit`, with `config` resolved.
    """
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
    feed = make_feed(network, images, config, device, progress, observer, first_here)
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
    size = filled_in(config.input_size)
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


def make_feed(
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
                feed = _own_feed(network, images, config, device, progress, observer)
            except Stopped:
                stopped = True
        if ranks.any_of(stopped):
            raise Stopped(checkpoint_written=False)
    assert feed is not None
    return feed


def _own_feed(
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
    del settings["target_precision"]  # is looked at when all is trained
    return {"config": settings, "classes": list(classes), "samples": digest.hexdigest()}
