"""Where batches come from: features computed once behind a frozen trunk, or images augmented anew each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.augment import augment, draw
from app.vision.classifier import CHUNK
from app.vision.config import TrainConfig, settled
from app.vision.engines import full_precision
from app.vision.errors import Stopped
from app.vision.mixing import Mix, mix
from app.vision.network import Network
from app.vision.precision import trunk_dtype
from app.vision.preprocessing import Preprocessing
from app.vision.presets import preset_of


class Feed(Protocol):
    """Gives the training loop its batches and its evaluations, so that there is one loop for all runs."""

    def logits(self, epoch: int, rows: NDArray[np.int64], how: Mix | None) -> Tensor:
        """Logits float32 [n, C] of training rows as this epoch shows them, with gradients for what learns."""

    def split_logits(self, split: str) -> Tensor:
        """What the network says now about a split's images, un-augmented: float32 [N, C] on the CPU."""


class ImageFeed:
    """Training images from the pack, augmented and passed through the whole network."""

    def __init__(
        self,
        network: Network,
        packs: Mapping[str, NDArray[np.uint8]],
        preprocessing: Preprocessing,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        self._network = network
        self._packs = packs
        self._preprocessing = preprocessing
        self._preset = preset_of(settled(config.augmentation))
        self._seed = config.seed
        self._device = device
        self._dtype = trunk_dtype(config.precision, device)
        self._drawn: tuple[int, Tensor] | None = None

    def logits(self, epoch: int, rows: NDArray[np.int64], how: Mix | None) -> Tensor:
        logits: Tensor = self._network.head(self.features("train", rows, epoch, how).float())
        return logits

    def features(self, split: str, rows: NDArray[np.int64], epoch: int, how: Mix | None = None) -> Tensor:
        """Trunk features [n, F] of augmented images, in reduced precision where that is fast."""
        dtype = self._dtype
        images = self._preprocessing.normalize(self._augmented(split, rows, epoch))
        if how is not None:
            images = mix(images, how)
        with torch.autocast(self._device.type, dtype=dtype, enabled=dtype is not None):
            features: Tensor = self._network.trunk(images)
        return features

    def exact_features(self, split: str, rows: NDArray[np.int64]) -> Tensor:
        """Trunk features float32 [n, F] as prediction computes them: centre crop, full precision."""
        pixels = self._preprocessing.crop_array(self._packs[split][rows])
        with full_precision(self._device):
            batch = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._device)
            features: Tensor = self._network.trunk(self._preprocessing.normalize(batch))
        return features

    def split_logits(self, split: str) -> Tensor:
        self._network.eval()
        with torch.inference_mode(), full_precision(self._device):
            chunks = _chunks(len(self._packs[split]))
            return torch.cat([self._network.head(self.exact_features(split, rows)).cpu() for rows in chunks])

    def _augmented(self, split: str, rows: NDArray[np.int64], epoch: int) -> Tensor:
        pack = self._packs[split]
        if self._preset is None:
            crop = self._preprocessing.crop_array(pack[rows])
            return torch.from_numpy(np.ascontiguousarray(crop)).to(self._device)
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = (epoch, torch.from_numpy(draw(self._seed, epoch, len(pack))))
        batch = torch.from_numpy(pack[rows]).to(self._device)
        uniform = self._drawn[1][torch.from_numpy(rows)].to(self._device)
        return augment(batch, uniform, self._preset, self._preprocessing.crop)


class FeatureFeed:
    """Features of a frozen trunk, computed once; after that an epoch is a few small matrix products."""

    def __init__(
        self,
        images: ImageFeed,
        network: Network,
        sizes: Mapping[str, int],
        folder: Path,
        config: TrainConfig,
        device: torch.device,
        *,
        progress: Callable[[float], object],
        should_stop: Callable[[], bool],
    ) -> None:
        """Raises Stopped if `should_stop` says so between two chunks."""
        network.eval()
        width = len(network.head.mean)
        views = 1 if config.augmentation == "none" else config.views
        total = sum(sizes.values()) + (views - 1) * sizes["train"]
        self._head = network.head
        self._device = device
        self._views = views
        self._features: dict[str, NDArray[np.float32]] = {}
        done = 0
        for split, size in sizes.items():
            shape = (views if split == "train" else 1, size, width)
            # On disk behind the page cache: a hundred thousand images times 2,048 features would crowd the memory.
            table = np.lib.format.open_memmap(folder / f"features-{split}.npy", "w+", dtype=np.float32, shape=shape)
            self._features[split] = table
            for view in range(shape[0]):
                for rows in _chunks(size):
                    with torch.inference_mode():
                        augmented = split == "train" and config.augmentation != "none"
                        chunk = images.features(split, rows, view) if augmented else images.exact_features(split, rows)
                    table[view, rows] = chunk.float().cpu().numpy()
                    done += len(rows)
                    progress(done / total)
                    if should_stop():
                        raise Stopped(checkpoint_written=False)

    def logits(self, epoch: int, rows: NDArray[np.int64], how: Mix | None) -> Tensor:
        features = torch.from_numpy(self._features["train"][epoch % self._views, rows]).to(self._device)
        logits: Tensor = self._head(features if how is None else mix(features, how))
        return logits

    def split_logits(self, split: str) -> Tensor:
        self._head.eval()
        with torch.inference_mode():
            logits: Tensor = self._head(torch.from_numpy(self._features[split][0]).to(self._device)).cpu()
            return logits


def _chunks(count: int) -> list[NDArray[np.int64]]:
    rows = np.arange(count)
    return [rows[start : start + CHUNK] for start in range(0, count, CHUNK)]
