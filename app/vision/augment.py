"""Random crops, flips, rotations and colour changes of a batch; every sample's draw depends on its row alone."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from app.vision.presets import Preset

COLUMNS = 14  # uniform numbers drawn for each sample, whatever the preset uses of them


def draw(seed: int, epoch: int, samples: int) -> NDArray[np.float32]:
    """Uniform numbers float32 [samples, COLUMNS] in 0..1 for one epoch.

    A counter-based generator (Philox; Salmon et al. 2011) keyed by seed and epoch: a row is the same whatever the
    batch it falls into, the number of rows, and where a stopped run resumed.
    """
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    return generator.random((samples, COLUMNS), dtype=np.float32)


def augment(batch: Tensor, uniform: Tensor, preset: Preset, size: int) -> Tensor:
    """float32 [N, 3, size, size] in 0..255 from uint8 [N, S, S, 3] and its rows of `draw`, float32 [N, COLUMNS]."""
    pixels = batch.permute(0, 3, 1, 2).float()
    grid = functional.affine_grid(_crops(uniform, preset), [len(batch), 3, size, size], align_corners=False)
    out = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    out = _jitter(out, uniform, preset)
    return _erase(out, uniform, preset) if preset.erase else out


def _crops(u: Tensor, preset: Preset) -> Tensor:
    """Affine maps float32 [N, 2, 3] from output to input coordinates (both -1..1)."""
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
    """Brightness, contrast around the picture's mean grey, saturation around each pixel's grey."""
    spread = torch.tensor([preset.brightness, preset.contrast, preset.saturation], device=u.device)
    brightness, contrast, saturation = (1 + (2 * u[:, 6:9] - 1) * spread).T.reshape(3, -1, 1, 1, 1)
    pixels = pixels * brightness
    grey = _grey(pixels)
    pixels = grey + (pixels - grey) * saturation
    mean = grey.mean(dim=(2, 3), keepdim=True)
    out: Tensor = (mean + (pixels - mean) * contrast).clamp_(0.0, 255.0)
    return out


def _grey(pixels: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, [N, 1, H, W]."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=pixels.device).view(1, 3, 1, 1)
    grey: Tensor = (pixels * weights).sum(dim=1, keepdim=True)
    return grey


def _erase(pixels: Tensor, u: Tensor, preset: Preset) -> Tensor:
    """A rectangle of 2 to 25 % of the picture, filled with its mean colour."""
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
