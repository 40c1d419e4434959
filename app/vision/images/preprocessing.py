"""Turns an image into the numbers a network sees; the same object serves training, prediction and export."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.vision.errors import InvalidData
from app.vision.images.pillow import without_pillow_warnings
from app.vision.images.pixels import to_rgb, upright

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from app.vision.backbones.catalogue import Backbone

# Channel statistics of ImageNet that every backbone here was trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

ArrayOrTensor = TypeVar("ArrayOrTensor", "NDArray[np.uint8]", "torch.Tensor")

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _affine(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (x / 255 - mean) / std as one factor and one summand a channel.

    They are kept: a GPU waits for what is sent to it.
    """
    import torch

    # While a network is exported or compiled, tensors stand for what will be there then, and have no numbers in them.
    return _computed(preprocessing, device) if torch.compiler.is_compiling() else _kept(preprocessing, device)


@cache
def _kept(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    return _computed(preprocessing, device)


def _computed(preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    import torch

    with torch.inference_mode(False):
        std, mean = torch.tensor(preprocessing.std, device=device), torch.tensor(preprocessing.mean, device=device)
        return 1 / (255 * std), -mean / std


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Makes an image upright and RGB, takes its centre square and of that the centre, and normalises each channel.

    The square is resized to `resize` pixels, and the network sees the `crop` in its centre. Callers ask for shapes and
    for what is done, and not for these numbers.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    color: str = "RGB"

    def __post_init__(self) -> None:
        if not 0 < self.crop <= self.resize:
            raise ValueError(f"crop {self.crop} must lie between 1 and resize {self.resize}")
        if self.interpolation not in _FILTERS or self.color != "RGB":
            raise ValueError(f"unknown preprocessing: interpolation {self.interpolation!r}, color {self.color!r}")

    @classmethod
    def for_backbone(cls, backbone: Backbone, input_size: int) -> Preprocessing:
        """Return the published evaluation preprocessing of `backbone`, scaled to a crop of `input_size` pixels."""
        return cls(resize=round(input_size * backbone.resize_size / backbone.input_size), crop=input_size)

    @property
    def input_size(self) -> int:
        """Return the longer side of what the network sees, in pixels: `TrainConfig.input_size`."""
        return self.crop

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return the shape of an image as the network sees it: height, width, channels."""
        return self.crop, self.crop, 3

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """Return the shape of an image as `load` gives it and caches keep it: height, width, channels."""
        return self.resize, self.resize, 3

    @property
    def stored_recipe(self) -> dict[str, Any]:
        """Return what decides the pixels that `load` gives, JSON-able."""
        return {"resize": self.resize, "interpolation": self.interpolation, "color": self.color}

    def prepare(self, image: Image.Image | Path | bytes) -> NDArray[np.uint8]:
        """Return an image as the network sees it, uint8 of `input_shape`; raises as `load` does."""
        return self.input_of(self.load(image))

    def load(self, image: Image.Image | Path | bytes) -> NDArray[np.uint8]:
        """Return uint8 of `stored_shape`, RGB: the centre square of the upright image, resized.

        Raises InvalidData for what cannot be opened as an image.
        """
        try:
            with without_pillow_warnings():
                if isinstance(image, Image.Image):
                    return self.square(image)
                with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as opened:
                    return self.square(opened)
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            where = f"{image.name}: " if isinstance(image, Path) else ""
            raise InvalidData(f"{where}not a readable image ({error})") from error

    def square(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the centre square of an opened image, resized: [size, size, 3]."""
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 for a fraction of the work. Twice the size asked for is kept,
        # so that the final filter still decides what a pixel is. (No effect on other formats.)
        short = min(image.size)
        if short > 4 * self.resize:
            scale = 2 * self.resize / short
            image.draft("RGB", (int(image.width * scale), int(image.height * scale)))
        image.load()
        image = upright(to_rgb(image), image)
        width, height = image.size
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        square = image.resize(
            (self.resize, self.resize), _FILTERS[self.interpolation], box=(left, top, left + side, top + side)
        )
        return np.asarray(square, dtype=np.uint8)

    def input_of(self, pixels: ArrayOrTensor) -> ArrayOrTensor:
        """Return what the network sees of what `load` gave, the centre [..., crop, crop, 3]; a view."""
        start = (self.resize - self.crop) // 2
        return pixels[..., start : start + self.crop, start : start + self.crop, :]

    def normalize(self, batch: Tensor) -> Tensor:
        """Return float32 [N, 3, H, W] of uint8 [N, H, W, 3] (or [N, 3, H, W]), or of float 0..255 of either layout."""
        import torch

        scale, shift = _affine(self, batch.device)
        if batch.shape[-1] != 3:
            out = batch.float().mul(scale.view(1, 3, 1, 1)).add_(shift.view(1, 3, 1, 1))
            return out.contiguous(memory_format=torch.channels_last)
        # Channels lie innermost: a whole line of pixels at a time, for three numbers at a time are three times slower.
        width = batch.shape[2]
        lines = batch.flatten(2).float().mul_(scale.repeat(width)).add_(shift.repeat(width))
        return lines.view(batch.shape).permute(0, 3, 1, 2)

    def denormalize(self, pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return uint8 [H, W, 3] from what `normalize` makes of it, float32 [3, H, W], rounded to whole pixel values.

        Raises InvalidData where a value is none that `normalize` gives: pixels scaled or normalised otherwise.
        """
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        values = 255 * (pixels.transpose(1, 2, 0) * std + mean)
        if not ((values > -1) & (values < 256)).all():  # also what is no number
            raise InvalidData(
                f"values that no pixel has: normalise as (pixel / 255 - mean) / std with mean {list(self.mean)} "
                f"and std {list(self.std)}, channels in the order red, green, blue"
            )
        rounded: NDArray[np.uint8] = values.round().clip(0, 255).astype(np.uint8)
        return rounded

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary that `from_dict` reads back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Preprocessing:
        """Return the preprocessing that `to_dict` wrote."""
        red, green, blue = data["mean"]
        red_std, green_std, blue_std = data["std"]
        return cls(
            int(data["resize"]),
            int(data["crop"]),
            (red, green, blue),
            (red_std, green_std, blue_std),
            data["interpolation"],
            data["color"],
        )
