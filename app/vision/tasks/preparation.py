"""Prepares what the runs of all tasks need before their first step: images, a feed, and a checkpoint's identity."""

from __future__ import annotations

import hashlib
from typing import Any

from app.vision.backbones.catalogue import get_backbone
from app.vision.data.features import trunk_features
from app.vision.data.feeds import FeatureFeed, Feed, ImageFeed, seeds_of
from app.vision.data.imageset import ImageSet
from app.vision.data.sampling import batch_count
from app.vision.errors import InvalidConfig, Stopped
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Network
from app.vision.runtime import ranks
from app.vision.settings.config import TrainConfig, batch_size_of, filled_in
from app.vision.tasks.task import Inputs

SCALING_SAMPLE = 256  # training images whose features set the head's standardisation


def starting_preprocessing(inputs: Inputs) -> Preprocessing:
    """Return the base model's own where the input size is its; else the backbone's published one at that size."""
    size = filled_in(inputs.config.input_size)
    if inputs.base is not None and inputs.base.preprocessing.input_size == size:
        return inputs.base.preprocessing
    return Preprocessing.for_backbone(get_backbone(inputs.config.backbone), size)


def images_of(inputs: Inputs, preprocessing: Preprocessing) -> ImageSet:
    """Return the run's images, split by split; they are decoded when somebody asks for their pixels."""
    return ImageSet(
        inputs.samples,
        preprocessing,
        inputs.cache,
        fetch=inputs.fetch,
        progress=lambda done: inputs.progress.report("decoding", done),
        should_stop=inputs.observer.should_stop,
    )


def make_feed(network: Network, images: ImageSet, inputs: Inputs) -> Feed:
    """Return features where the trunk is frozen, else images.

    One rank of a machine makes them; then the others find them.
    """
    first_here = ranks.neighbours(inputs.workdir)[0] == ranks.number()
    feed: Feed | None = None
    for turn in (True, False):
        stopped = False
        if first_here is turn:
            try:
                feed = _own_feed(network, images, inputs)
            except Stopped:
                stopped = True
        if ranks.any_of(stopped):
            raise Stopped(checkpoint_written=False)
    assert feed is not None
    return feed


def _own_feed(network: Network, images: ImageSet, inputs: Inputs) -> Feed:
    config = inputs.config
    if config.train == "head":
        features = trunk_features(
            network,
            images,
            config,
            inputs.device,
            progress=lambda done: inputs.progress.report("features", done),
            should_stop=inputs.observer.should_stop,
        )
        return FeatureFeed(network.head, features, inputs.device)
    seeds = {split: seeds_of(keys) for split, keys in images.keys.items()}
    return ImageFeed(network, images.packs(), seeds, images.preprocessing, config, inputs.device)


def check_shares(config: TrainConfig, samples: int) -> None:
    """Raise InvalidConfig unless every rank has a part of every batch."""
    size = ranks.count() if config.batch_size == "auto" else batch_size_of(config)
    smallest = samples // batch_count(samples, size)
    if smallest < ranks.count():
        raise InvalidConfig(
            "batch_size",
            f"{config.batch_size}: a batch of {smallest} images cannot be shared by {ranks.count()} processes; use a"
            " larger one, or fewer processes.",
        )


def identity_of(inputs: Inputs) -> dict[str, Any]:
    """Return what must be equal for a checkpoint to be continued.

    File paths may differ: another machine may go on.
    """
    digest = hashlib.sha256("\n".join(f"{sample.label} {sample.split}" for sample in inputs.samples).encode())
    settings = inputs.config.to_dict()
    del settings["loader_workers"]  # changes the pace alone
    del settings["target_precision"]  # is looked at when all is trained
    return {"config": settings, "classes": list(inputs.classes), "samples": digest.hexdigest()}
