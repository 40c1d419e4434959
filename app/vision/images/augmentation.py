"""Random crops, flips, rotations and colour changes of a batch; every sample's draw depends on the image alone."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from app.vision.settings.presets import Preset

COLUMNS = 14  # uniform numbers drawn for each sample, whatever the preset uses of them
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def draw(seed: int, epoch: int, keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return uniform numbers float32 [samples, COLUMNS] in 0..1 for one epoch, from a key for each sample.

    Counter-based, with the mixing function of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195): a sample's
    numbers depend on seed, epoch and its key alone, not on its place, the batch, the other samples, or where a stopped
    run resumed. So a view of an image is the same in a dataset that has grown since.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        run = _mixed(_mixed(np.uint64(seed) + _GOLDEN) + np.uint64(epoch) * _GOLDEN)
        columns = np.arange(1, COLUMNS + 1, dtype=np.uint64) * _GOLDEN
        bits = _mixed(_mixed(keys ^ run)[:, None] + columns)
    uniform: NDArray[np.float32] = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
    return uniform


def _mixed(bits: Any) -> Any:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def augment(batch: Tensor, uniform: Tensor, preset: Preset, size: int) -> Tensor:
    """Return float32 [N, 3, size, size] in 0..255 of uint8 [N, S, S, 3] and its rows of `draw`, [N, COLUMNS]."""
    pixels = batch.permute(0, 3, 1, 2).float()
    grid = _grid(_crops(uniform, preset), size)
    out = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    out = _jitter(out, uniform, preset)
    return _erase(out, uniform, preset) if preset.erase else out


def _grid(maps: Tensor, size: int) -> Tensor:
    """Return where to sample, [N, size, size, 2]: `functional.affine_grid` in a quarter of its time on a CPU."""
    steps = (2 * torch.arange(size, device=maps.device) + 1) / size - 1
    across, down, shift = maps.view(-1, 1, 2, 3).unbind(dim=-1)
    columns = across * steps.view(1, -1, 1) + shift
    rows = down * steps.view(1, -1, 1)
    return columns[:, None] + rows[:, :, None]


def _crops(u: Tensor, preset: Preset) -> Tensor:
    """Return affine maps float32 [N, 2, 3] from output to input coordinates (both -1..1)."""
    area = preset.min_area + (1 - preset.min_area) * u[:, 0]
    stretch = torch.exp((2 * u[:, 1] - 1) * math.log(preset.max_stretch) / 2)
    width = (area.sqrt() * stretch).clamp(max=1.0)
    height = (area.sqrt() / stretch).clamp(max=1.0)
    angle = (2 * u[:, 2] - 1) * math.radians(preset.degrees)
    mirror = torch.where(u[:, 3] < preset.flip, -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    x = (2 * u[:, 4] - 1) * (1 - width)
    y = (2 * u[:, 5] - 1) * (1 - height)
    rows = [width * cos * mirror, -height * sin, x, width * sin * mirror, height * cos, y]
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def _jitter(pixels: Tensor, u: Tensor, preset: Preset) -> Tensor:
    """Change brightness, contrast around the picture's mean grey, saturation around each pixel's grey (luma of BT.601).

    All three are linear, so together they are one matrix and one offset for each picture: memory is read once.
    """
    spread = _constant((preset.brightness, preset.contrast, preset.saturation), u.device)
    brightness, contrast, saturation = (1 + (2 * u[:, 6:9] - 1) * spread).T
    luma = _constant((0.299, 0.587, 0.114), u.device)
    saturate = torch.eye(3, device=u.device) * saturation.view(-1, 1, 1) + luma * (1 - saturation).view(-1, 1, 1)
    matrix = saturate * (brightness * contrast).view(-1, 1, 1)
    grey = brightness * (pixels.mean(dim=(2, 3)) @ luma)
    offset = ((1 - contrast) * grey).view(-1, 1, 1)
    out = torch.baddbmm(offset, matrix, pixels.flatten(2)).clamp_(0.0, 255.0)
    return out.view_as(pixels)


@cache
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the numbers as a tensor that is kept: a GPU finishes what it was told before it is sent anything."""
    with torch.inference_mode(False):
        return torch.tensor(values, device=device)


def _erase(pixels: Tensor, u: Tensor, preset: Preset) -> Tensor:
    """Fill a rectangle of 2 to 25 % of the picture with its mean colour."""
    size = pixels.shape[-1]
    area = 0.02 + 0.23 * u[:, 10]
    stretch = torch.exp((2 * u[:, 11] - 1) * math.log(2.0))
    width, height = (area * stretch).sqrt(), (area / stretch).sqrt()
    left, top = u[:, 12] * (1 - width), u[:, 13] * (1 - height)
    place = (torch.arange(size, device=u.device) + 0.5) / size
    columns = (place >= left[:, None]) & (place < (left + width)[:, None])
    rows = (place >= top[:, None]) & (place < (top + height)[:, None])
    hit = (rows[:, None, :, None] & columns[:, None, None, :]) & (u[:, 9] < preset.erase)[:, None, None, None]
    return torch.where(hit, pixels.mean(dim=(2, 3), keepdim=True), pixels)
