"""Augmentation: what it may depend on, and what it does to a picture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from app.vision.images.augmentation import COLUMNS, augment, draw
from app.vision.settings.presets import PRESETS, UNCHANGED, Transform, preset_of

KEYS = np.random.default_rng(3).integers(0, 2**64, 100, dtype=np.uint64)
KEYS_MANY = np.arange(20_000, dtype=np.uint64)


@pytest.fixture
def batch() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 40, 40, 3), dtype=np.uint8))


def uniform(epoch: int, rows: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(draw(seed, epoch, KEYS[:rows]))


def test_draws_depend_on_seed_epoch_and_image_alone() -> None:
    drawn = draw(1, 2, KEYS)
    assert drawn.dtype == np.float32
    assert np.array_equal(drawn[::-1], draw(1, 2, KEYS[::-1]))
    assert np.array_equal(drawn[3:7], draw(1, 2, KEYS[3:7]))
    for other in (draw(2, 2, KEYS), draw(1, 3, KEYS), draw(1, 2, KEYS + np.uint64(1000))):
        assert np.isin(other, drawn).mean() < 0.01
    assert len(np.unique(drawn)) > 99 * COLUMNS


def test_draws_are_uniform_and_independent_of_one_another() -> None:
    drawn = draw(0, 0, np.arange(20_000, dtype=np.uint64)).astype(np.float64)  # keys as alike as they can be
    assert 0 <= drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    for column in drawn.T:
        counts, _ = np.histogram(column, bins=20, range=(0, 1))
        assert np.abs(counts - 1000).max() < 150
    among = np.corrcoef(np.vstack([drawn.T, np.roll(drawn, 1, axis=0).T, draw(0, 1, KEYS_MANY).T]))
    np.fill_diagonal(among, 0)
    assert np.abs(among).max() < 0.05


@pytest.mark.parametrize("name", ["light", "standard", "strong"])
def test_a_sample_looks_the_same_in_any_batch(batch: torch.Tensor, name: str) -> None:
    preset, u = PRESETS[name], uniform(1)  # type: ignore[index]
    together = augment(batch, u, preset, 32)
    assert together.shape == (6, 3, 32, 32)
    assert together.min() >= 0
    assert together.max() <= 255
    alone = torch.cat([augment(batch[row : row + 1], u[row : row + 1], preset, 32) for row in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)
    assert (augment(batch, uniform(2), preset, 32) - together).abs().amax(dim=(1, 2, 3)).min() > 1


def test_samples_of_a_batch_are_treated_differently() -> None:
    same = torch.randint(0, 256, (1, 40, 40, 3), dtype=torch.uint8).expand(6, -1, -1, -1)
    out = augment(same, uniform(1), PRESETS["light"], 32)
    assert min((out[i] - out[j]).abs().max() for i in range(6) for j in range(i)) > 1


def test_nothing_to_do_leaves_the_picture_alone(batch: torch.Tensor) -> None:
    torch.testing.assert_close(
        augment(batch, uniform(1), UNCHANGED, 40), batch.permute(0, 3, 1, 2).float(), atol=1e-2, rtol=0
    )


def test_a_certain_flip_mirrors(batch: torch.Tensor) -> None:
    flipped = augment(batch, uniform(1), dataclasses.replace(UNCHANGED, flip=1.0), 40)
    torch.testing.assert_close(flipped, batch.permute(0, 3, 1, 2).flip(-1).float(), atol=1e-2, rtol=0)


def test_light_never_mirrors() -> None:
    ramp = torch.arange(0, 240, 6, dtype=torch.uint8).view(1, 1, 40, 1).expand(50, 40, 40, 3)
    out = augment(ramp, uniform(1, 50), PRESETS["light"], 32).mean(dim=(1, 2))
    assert (out[:, -1] > out[:, 0]).all()
    both = augment(ramp, uniform(1, 50), PRESETS["standard"], 32).mean(dim=(1, 2))
    assert 10 < int((both[:, -1] > both[:, 0]).sum()) < 40


def test_brightness_scales(batch: torch.Tensor) -> None:
    u = uniform(1)
    out = augment(batch // 2, u, dataclasses.replace(UNCHANGED, brightness=0.5), 40)
    ratio = out.mean(dim=(1, 2, 3)) / (batch // 2).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(ratio, 1 + (2 * u[:, 6] - 1) * 0.5, atol=1e-3, rtol=0)


def test_erasing_blanks_one_rectangle(batch: torch.Tensor) -> None:
    out = augment(batch, uniform(1), dataclasses.replace(UNCHANGED, erase=1.0), 40)
    changed = ((out - batch.permute(0, 3, 1, 2).float()).abs() > 0.1).any(dim=1)
    share = changed.float().mean(dim=(1, 2))
    assert share.min() > 0.01
    assert share.max() < 0.3
    for mask in changed:
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert mask[rows][:, columns].float().mean() > 0.95


def test_a_list_of_transforms_does_what_it_names_and_no_more(batch: torch.Tensor) -> None:
    plain, u = batch.permute(0, 3, 1, 2).float(), uniform(1)
    preset = preset_of([Transform("flip", {"probability": 1.0})])
    assert preset is not None
    torch.testing.assert_close(augment(batch, u, preset, 40), plain.flip(-1), atol=1e-2, rtol=0)

    preset = preset_of([Transform("color", {"contrast": 0.0, "saturation": 0.0, "brightness": 0.5})])
    assert preset is not None
    expected = (plain // 2) * (1 + (2 * u[:, 6:7, None, None] - 1) * 0.5)
    torch.testing.assert_close(augment(batch // 2, u, preset, 40), expected, atol=0.2, rtol=0)


def test_the_presets_can_be_spelled_out_in_any_order() -> None:
    steps = [
        Transform("color"),
        Transform("flip"),
        Transform("crop", {"max_stretch": 1.2}),
        Transform("rotate"),
    ]
    assert preset_of(steps) == preset_of(steps[::-1]) == preset_of("standard") != preset_of(steps[:2])
    assert preset_of("none") is None
