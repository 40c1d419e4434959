"""Estimates what a training will need, from its configuration alone: parameters, memory and disk.

No torch is loaded. Figures are for one process, computing in float32; bfloat16 takes half of the batch's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.vision.backbones.architecture import Stage, head_parameters, stages
from app.vision.backbones.catalogue import get_backbone
from app.vision.images.preprocessing import Preprocessing
from app.vision.settings.config import TrainConfig, filled_in

_NUMBER = 4  # bytes of a float32
_RUNTIME = 700 * 2**20  # Python with torch and what it loads with its first steps, measured on Linux
_CHUNK = 32  # images that a pass without gradients takes at a time
_KEPT_CHECKPOINTS = 3  # the last two, and the one with the best weights
_SLOTS = {"sgd": 1, "adam": 2, "adamw": 2}  # tensors that the optimiser keeps for each that learns


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """Counts of numbers. `learning` are the stages that learn, nearest the head first, as they thaw."""

    parameters: int
    trainable: int
    statistics: int
    features: int
    learning: tuple[str, ...]


def network_size(config: TrainConfig, classes: int) -> NetworkSize:
    """Return the size of the network that the resolved configuration trains."""
    trunk, learning = _trunk(config)
    head = head_parameters(trunk[-1].maps, config.head.hidden, classes)
    return NetworkSize(
        parameters=head + sum(stage.parameters for stage in trunk),
        trainable=head + sum(stage.parameters for stage in learning),
        statistics=sum(stage.statistics for stage in trunk) + 2 * trunk[-1].maps,  # and the head's mean and scale
        features=trunk[-1].maps,
        learning=tuple(stage.name for stage in learning),
    )


def memory(config: TrainConfig, classes: int, batch_size: int) -> dict[str, int]:
    """Return the bytes that one process takes at most, by what takes them.

    `batch_size` is that process's share of a batch.
    """
    trunk, learning = _trunk(config)
    size = network_size(config, classes)
    copies = 2 + _SLOTS[config.optimizer] + bool(config.ema)  # the gradient, and the weights of the best epoch
    largest = max(stage.largest for stage in trunk)
    side = filled_in(config.input_size)
    # Without gradients a layer's input, its output and a shortcut are there at a time. With them the layers of the
    # stages that learn stay, and the backward pass has about as many of the largest in hand.
    passing = 3 * largest * max(_CHUNK, batch_size if learning else 0)
    return {
        "runtime": _RUNTIME,
        "weights": _NUMBER * (size.parameters + size.statistics),
        "learning": _NUMBER * size.trainable * copies,
        "batch": _NUMBER * (batch_size * (sum(stage.kept for stage in learning) + 3 * side * side) + passing),
    }


def disk(config: TrainConfig, classes: int, images: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes of what a training keeps, by what it is; `images` holds their number for each split.

    `pixels` and `features` lie in the worker's cache, which is bounded and shared with other trainings; `checkpoints`
    until the job has ended, and `model` afterwards, in the blob store.
    """
    size = network_size(config, classes)
    side = Preprocessing.for_backbone(get_backbone(config.backbone), filled_in(config.input_size)).resize
    views = 1 if config.augmentation == "none" else config.views
    rows = sum(count * (views if split == "train" else 1) for split, count in images.items())
    _, learning = _trunk(config)
    copies = 2 + _SLOTS[config.optimizer] + bool(config.ema)  # the weights, now and at their best
    statistics = 2 * (2 * size.features + sum(stage.statistics for stage in learning))
    return {
        "pixels": sum(images.values()) * side * side * 3,
        "features": rows * size.features * _NUMBER if config.train == "head" else 0,
        "checkpoints": _KEPT_CHECKPOINTS * (copies * size.trainable + statistics) * _NUMBER,
        "model": (size.parameters + size.statistics) * _NUMBER,
    }


def _trunk(config: TrainConfig) -> tuple[list[Stage], list[Stage]]:
    """Return all stages from the image on, and those that learn, nearest the head first."""
    backbone = get_backbone(config.backbone)
    trunk = stages(backbone, filled_in(config.input_size))
    return trunk, trunk[::-1][: config.thawed_stages(backbone)]
