"""Feeds batches to the loop: features computed once behind a frozen trunk, or images augmented anew each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from app.vision.data.loader import Loader
from app.vision.data.resident import Resident, sent
from app.vision.data.rowcache import Rows
from app.vision.images.augmentation import augment, draw
from app.vision.images.mixing import Mix, mix
from app.vision.images.preprocessing import Preprocessing
from app.vision.networks.network import Head, Network
from app.vision.runtime import ranks
from app.vision.runtime.compilation import CompiledTrunk
from app.vision.runtime.cuda_graphs import GraphedTrunk
from app.vision.runtime.memory import CHUNK
from app.vision.runtime.precision import full_precision, trunk_dtype
from app.vision.settings.config import TrainConfig, filled_in
from app.vision.settings.presets import preset_of

Compute = Callable[[Tensor], Mapping[str, Tensor]]

SMALL = 64 * 2**20  # bytes of features that are kept in memory: 32,000 images' behind a ResNet-18


class Feed(Protocol):
    """Gives the training loop its batches and its evaluations, so that there is one loop for all runs."""

    @property
    def notes(self) -> list[str]:
        """Return what was not done as the configuration asked for, and why."""

    def expect(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> None:
        """Hear which batches `outputs` will be asked for next, and in which order."""

    def outputs(self, epoch: int, rows: NDArray[np.int64], how: Mix | None) -> Tensor:
        """Return what the head gives of training rows as this epoch shows them, with gradients for what learns.

        It is float32 [n, ...]. Rows that are but the partners of others in a mixture have none.
        """

    def split_outputs(self, split: str) -> Tensor:
        """Return what the head gives now of a split's images, un-augmented: float32 [N, ...] on the CPU.

        In the precision of the training, which is faster than that of prediction.
        """

    def exactly(self, split: str, compute: Compute) -> dict[str, Tensor]:
        """Return what `compute` gives, by name, for the features [N, F] of a split's images, as prediction does it.

        It is given some of them at a time and its results [n, ...] are put together; they lie on the CPU.
        """

    def known_features(self, rows: NDArray[np.int64]) -> Tensor:
        """Return trunk features float32 [n, F] on the CPU of those training images, as prediction computes them.

        Those of a frozen trunk are what the first epoch showed.
        """

    def spread_features(self, count: int) -> Tensor:
        """Return trunk features float32 [n, F] of at most `count` training images, spread evenly over the split."""


class ImageFeed:
    """Takes training images from the pack, augments them, and passes them through the whole network."""

    def __init__(
        self,
        network: Network,
        packs: Mapping[str, Rows],
        seeds: Mapping[str, NDArray[np.uint64]],
        preprocessing: Preprocessing,
        config: TrainConfig,
        device: torch.device,
    ) -> None:
        """`packs` has the pixels of each split, `seeds` what the augmentation of each image depends on."""
        self._network = network
        self._packs = {split: Resident(rows, device) for split, rows in packs.items()}
        self._seeds = seeds
        self._preprocessing = preprocessing
        self._preset = preset_of(filled_in(config.augmentation))
        self._seed = config.seed
        self._device = device
        self._dtype = trunk_dtype(config.precision, device)
        self._loader = Loader(self._prepared, config.loader_workers)
        self._learner: CompiledTrunk | GraphedTrunk
        if config.compile:
            self._learner = CompiledTrunk(network.trunk)
        else:
            self._learner = GraphedTrunk(network.trunk, device, self._dtype)
        self._records = config.accumulate == 1

    def expect(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> None:
        if isinstance(self._learner, GraphedTrunk):
            # Before the loader's threads begin: while a graph is recorded, nobody else may ask for the GPU's memory.
            sizes = {len(rows) for rows in batches} if self._records else set()
            self._learner.record(sizes, self._preprocessing.input_shape[:2])
        self._loader.expect(epoch, batches)

    @property
    def notes(self) -> list[str]:
        note = self._learner.note if isinstance(self._learner, CompiledTrunk) else None
        return [note] if note else []

    def outputs(self, epoch: int, rows: NDArray[np.int64], how: Mix | None) -> Tensor:
        found: Tensor = self._network.head(self.features(rows, epoch, how).float())
        return found

    def features(self, rows: NDArray[np.int64], epoch: int, how: Mix | None = None) -> Tensor:
        """Return trunk features [n, F] of training images as `epoch` shows them.

        They are computed in reduced precision where that is fast.
        """
        images = self._preprocessing.normalize(self._augmented(self._loader.take(epoch, rows), rows, epoch))
        return self._trunk(images if how is None else mix(images, how))

    def exact_features(self, split: str, rows: NDArray[np.int64]) -> Tensor:
        """Return trunk features float32 [n, F] as prediction computes them: un-augmented, in full precision."""
        with full_precision(self._device):
            features: Tensor = self._network.trunk(self._preprocessing.normalize(self._cropped(split, rows)))
        return features

    def split_outputs(self, split: str) -> Tensor:
        self._network.eval()
        with torch.inference_mode(), full_precision(self._device):
            chunks = _chunks(np.arange(len(self._packs[split])))
            return torch.cat(
                ranks.in_shares(chunks, lambda rows: self._network.head(self._plain_features(split, rows)).cpu())
            )

    def exactly(self, split: str, compute: Compute) -> dict[str, Tensor]:
        return self._exactly(split, np.arange(len(self._packs[split])), compute)

    def known_features(self, rows: NDArray[np.int64]) -> Tensor:
        return self._exactly("train", rows, lambda features: {"features": features})["features"]

    def _exactly(self, split: str, rows: NDArray[np.int64], compute: Compute) -> dict[str, Tensor]:
        self._network.eval()
        with torch.inference_mode(), full_precision(self._device):
            features = self.exact_features
            return _joined(ranks.in_shares(_chunks(rows), lambda part: _kept(compute(features(split, part)))))

    def spread_features(self, count: int) -> Tensor:
        self._network.eval()
        with torch.inference_mode():
            chunks = _chunks(_spread(len(self._packs["train"]), count))
            return torch.cat(ranks.in_shares(chunks, self._first_features))

    def _first_features(self, rows: NDArray[np.int64]) -> Tensor:
        """Return features as the first epoch shows them: a head on stored features is standardised by the same."""
        return self._trunk(self._preprocessing.normalize(self._augmented(self._prepared(0, rows), rows, 0))).float()

    def _plain_features(self, split: str, rows: NDArray[np.int64]) -> Tensor:
        return self._trunk(self._preprocessing.normalize(self._cropped(split, rows))).float()

    def _trunk(self, images: Tensor) -> Tensor:
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=self._dtype is not None):
            features: Tensor = self._learner(images)
        return features

    def _cropped(self, split: str, rows: NDArray[np.int64]) -> Tensor:
        return self._preprocessing.input_of(self._packs[split].read(rows)).contiguous().to(self._device)

    def _prepared(self, epoch: int, rows: NDArray[np.int64]) -> Tensor:
        """Do what a loader's thread can: read, and on a CPU augment. Returns uint8 or float32 of any layout, 0..255."""
        batch = self._packs["train"].read(rows)
        if self._preset is None:
            batch = self._preprocessing.input_of(batch).contiguous()
        if self._device.type == "cpu":
            return self._augmented(batch, rows, epoch)
        return batch if batch.is_cuda else batch.pin_memory()

    def _augmented(self, batch: Tensor, rows: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the batch on the device, augmented unless it is already."""
        batch = batch.to(self._device, non_blocking=True)
        if self._preset is None or batch.is_floating_point():
            return batch
        uniform = sent(draw(self._seed, epoch, self._seeds["train"][rows]), self._device)
        return augment(batch, uniform, self._preset, self._preprocessing.input_size)


class FeatureFeed:
    """Holds the features of a frozen trunk, computed once: an epoch is then a few small matrix products."""

    def __init__(self, head: Head, features: Mapping[str, Sequence[Rows]], device: torch.device) -> None:
        """`features` has a table for each split, and for "train" one for each view; epochs take turns with them."""
        self._head = head
        self._features = {
            split: [Resident(rows, device, SMALL) for rows in tables] for split, tables in features.items()
        }
        self._device = device

    @property
    def notes(self) -> list[str]:
        return []  # nothing of the trunk is trained, hence nothing is compiled

    def expect(self, epoch: int, batches: Sequence[NDArray[np.int64]]) -> None:
        pass

    def outputs(self, epoch: int, rows: NDArray[np.int64], how: Mix | None) -> Tensor:
        views = self._features["train"]
        features = self._read(views[epoch % len(views)], rows)
        found: Tensor = self._head(features if how is None else mix(features, how))
        return found

    def split_outputs(self, split: str) -> Tensor:
        return self.exactly(split, lambda features: {"": self._head(features)})[""]

    def exactly(self, split: str, compute: Compute) -> dict[str, Tensor]:
        self._head.eval()
        table = self._features[split][0]
        with torch.inference_mode():
            chunks = _chunks(np.arange(len(table)), 64 * CHUNK)
            return _joined([_kept(compute(self._read(table, rows))) for rows in chunks])

    def known_features(self, rows: NDArray[np.int64]) -> Tensor:
        return self._read(self._features["train"][0], rows).cpu()

    def spread_features(self, count: int) -> Tensor:
        table = self._features["train"][0]
        return self._read(table, _spread(len(table), count))

    def _read(self, table: Resident, rows: NDArray[np.int64]) -> Tensor:
        return table.read(rows).to(self._device)


def seeds_of(keys: Sequence[bytes]) -> NDArray[np.uint64]:
    """Return what the augmentation of images depends on, from the hashes of their files."""
    return np.array([int.from_bytes(key[:8], "big") for key in keys], dtype=np.uint64)


def _kept(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.cpu() for name, tensor in found.items()}


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _spread(size: int, count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, size - 1, min(size, count)).astype(np.int64))


def _chunks(rows: NDArray[np.int64], size: int = CHUNK) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
