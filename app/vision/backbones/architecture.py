"""Counts what the backbones are made of, stage by stage and without torch: parameters, and what a training keeps.

The layers are those of He et al. 2016 (arXiv:1512.03385), Xie et al. 2017 (arXiv:1611.05431), Zagoruyko & Komodakis
2016 (arXiv:1605.07146) and Simonyan & Zisserman 2015 (arXiv:1409.1556), as torchvision builds them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from app.vision.backbones.catalogue import Backbone

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# Convolutions of each block of a VGG, and their maps.
_VGG_BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_VGG_MAPS = (64, 128, 256, 512, 512)
_GROUPS = {
    "resnext50_32x4d": (32, 4),
    "resnext101_32x8d": (32, 8),
    "resnext101_64x4d": (64, 4),
    "wide_resnet50_2": (1, 128),
    "wide_resnet101_2": (1, 128),
}  # and the width of a group where a block has 64 maps


@dataclass(frozen=True, slots=True)
class Stage:
    """Is a stage of the trunk. `kept` numbers of an image are held until its backward pass; `largest` is a layer's."""

    name: str
    parameters: int
    statistics: int  # of batch norms, which are stored and no parameters
    kept: int
    largest: int
    maps: int  # that leave it: the features, of the last stage


class _Layers:
    """Adds up layers as an image of `side` pixels goes through them."""

    def __init__(self, side: int, maps: int = 3) -> None:
        self.side, self.maps = side, maps
        self.start()

    def start(self) -> None:
        self.parameters = self.statistics = self.kept = self.largest = 0

    def stage(self, name: str) -> Stage:
        """Return what has come since the last one."""
        done = Stage(name, self.parameters, self.statistics, self.kept, self.largest, self.maps)
        self.start()
        return done

    def convolution(
        self, maps: int, kernel: int, stride: int = 1, *, groups: int = 1, norm: bool = True, bias: bool = False
    ) -> None:
        self.parameters += maps * self.maps // groups * kernel * kernel + bias * maps + norm * 2 * maps
        self.statistics += norm * 2 * maps
        self.side, self.maps = -(-self.side // stride), maps
        numbers = self.side * self.side * maps
        # A norm keeps what it gets and the next layer what it gets; a ReLU works in place.
        self.kept += numbers * (2 if norm else 1)
        self.largest = max(self.largest, numbers)

    def pool(self, *, padded: bool) -> None:
        self.side = -(-self.side // 2) if padded else self.side // 2
        self.kept += 3 * self.side * self.side * self.maps  # what leaves it, and where it was found: int64


def stages(backbone: Backbone, side: int) -> list[Stage]:
    """Return the trunk's stages from the image, a square of `side` pixels, to the features."""
    return _vgg(backbone, side) if backbone.family == "vgg" else _resnet(backbone, side)


def _vgg(backbone: Backbone, side: int) -> list[Stage]:
    layers, found = _Layers(side), []
    norm = backbone.name.endswith("_bn")
    for number, (count, maps) in enumerate(zip(_VGG_BLOCKS[backbone.depth], _VGG_MAPS, strict=True), start=1):
        for _ in range(count):
            layers.convolution(maps, 3, norm=norm, bias=True)
        layers.pool(padded=False)
        found.append(layers.stage(f"block{number}"))
    return found


def _resnet(backbone: Backbone, side: int) -> list[Stage]:
    layers = _Layers(side)
    layers.convolution(64, 7, 2)
    layers.pool(padded=True)
    found = [layers.stage("stem")]
    groups, width = _GROUPS.get(backbone.name, (1, 64))
    for number, count in enumerate(_BLOCKS[backbone.depth]):
        maps = 64 * 2**number
        for block in range(count):
            stride = 2 if number and not block else 1
            came, came_side = layers.maps, layers.side
            if backbone.depth < 50:
                leaves = maps
                layers.convolution(maps, 3, stride)
                layers.convolution(maps, 3)
            else:
                leaves = 4 * maps
                inner = maps * width // 64 * groups
                layers.convolution(inner, 1)
                layers.convolution(inner, 3, stride, groups=groups)
                layers.convolution(leaves, 1)
            if stride > 1 or came != leaves:
                after = layers.side
                layers.maps, layers.side = came, came_side
                layers.convolution(leaves, 1, stride)
                layers.side = after
        found.append(layers.stage(f"layer{number + 1}"))
    return found


def head_parameters(features: int, hidden: tuple[int, ...], classes: int) -> int:
    """Return the number of weights and biases of the head's linear layers."""
    sizes = [features, *hidden, classes]
    return sum(before * after + after for before, after in itertools.pairwise(sizes))
