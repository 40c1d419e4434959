"""Computes what a frozen trunk makes of the images once, and keeps it for later runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from app.vision.data.feeds import ImageFeed, seeds_of
from app.vision.data.imageset import ImageSet
from app.vision.data.rowcache import Add, Kind, Rows
from app.vision.errors import Stopped
from app.vision.networks.network import Network
from app.vision.runtime.memory import CHUNK
from app.vision.runtime.precision import trunk_dtype
from app.vision.settings.config import TrainConfig, filled_in
from app.vision.settings.presets import preset_of


def trunk_features(
    network: Network,
    images: ImageSet,
    config: TrainConfig,
    device: torch.device,
    *,
    progress: Callable[[float], object],
    should_stop: Callable[[], bool],
) -> dict[str, list[Rows]]:
    """Return features float32 [F] of every image: one view of each for val and test, `config.views` of them for train.

    Views are those that the augmentation shows in the first epochs; without augmentation there is one, and it is what
    prediction computes. Rows that the cache holds are not computed, nor are their images fetched. Raises Stopped.
    """
    network.eval()
    wanted = _wanted(network, images, config, device)
    lacking: dict[str, set[int]] = {split: set() for split, _, _ in wanted}
    for split, _, kind in wanted:
        lacking[split] |= set(images.cache.missing(kind, images.keys[split]))
    images.packs({split: sorted(places) for split, places in lacking.items() if places})  # all decoding comes first
    total = sum(len(images.keys[split]) for split, _, _ in wanted)
    features: dict[str, list[Rows]] = {}
    before = 0
    for split, view, kind in wanted:

        def compute(
            places: list[int], add: Add, split: str = split, view: int | None = view, before: int = before
        ) -> None:
            rows = np.arange(len(places))
            packs = images.packs({split: places})
            seeds = {split: seeds_of([images.keys[split][place] for place in places])}
            feed = ImageFeed(network, packs, seeds, images.preprocessing, config, device)
            for start in range(0, len(rows), CHUNK):
                # Always as many images at a time: what comes out must not depend on how many were missing.
                part = rows[start : start + CHUNK]
                full = np.pad(part, (0, CHUNK - len(part)), mode="edge")
                with torch.inference_mode():
                    chunk = feed.exact_features(split, full) if view is None else feed.features(full, view)
                add(chunk[: len(part)].float().cpu().numpy())
                progress((before + start + len(part)) / total)
                if should_stop():
                    raise Stopped(checkpoint_written=False)

        features.setdefault(split, []).append(images.cache.rows(kind, images.keys[split], compute, should_stop))
        before += len(images.keys[split])
    progress(1.0)
    return features


def _wanted(
    network: Network, images: ImageSet, config: TrainConfig, device: torch.device
) -> list[tuple[str, int | None, Kind]]:
    """Return split, view (None: as prediction sees it) and kind of row, of all that is wanted."""
    preset = preset_of(filled_in(config.augmentation))
    recipe: dict[str, Any] = {
        "trunk": _fingerprint(network),
        "pooling": config.head.pooling,
        "preprocessing": images.preprocessing.to_dict(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
    }
    width = (network.features,)
    exact = Kind("features", recipe, width, "float32")
    wanted: list[tuple[str, int | None, Kind]] = []
    if preset is None:
        wanted.append(("train", None, exact))
    else:
        how = {"preset": asdict(preset), "seed": config.seed, "dtype": str(trunk_dtype(config.precision, device))}
        for view in range(config.views):
            wanted.append(("train", view, Kind("features", recipe | how | {"view": view}, width, "float32")))
    return wanted + [(split, None, exact) for split in images.keys if split != "train"]


def _fingerprint(network: Network) -> str:
    """Return the SHA-256 of the trunk's weights and statistics."""
    digest = hashlib.sha256()
    for name, tensor in network.trunk.state_dict().items():
        digest.update(name.encode())
        if tensor.ndim == 4:  # channels last, as they lie in memory: 45 MB need not be turned round
            tensor = tensor.permute(0, 2, 3, 1)
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()
