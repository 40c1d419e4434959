"""Mixup and cutmix: what a mixture depends on, and that pixels and shares agree."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from app.vision.images.mixing import draw_mix, mix
from app.vision.settings.config import TrainConfig

CONFIG = TrainConfig("resnet18", train="all", input_size=32, seed=4)
MIXUP = dataclasses.replace(CONFIG, mixup=1.0)
CUTMIX = dataclasses.replace(CONFIG, cutmix=1.0)


def test_a_mixture_depends_on_seed_epoch_and_batch_alone() -> None:
    first = draw_mix(MIXUP, 2, 3, 8)
    again = draw_mix(MIXUP, 2, 3, 8)
    assert first is not None
    assert again is not None
    assert first.share == again.share
    assert first.partner.tolist() == again.partner.tolist()
    for other in (
        draw_mix(dataclasses.replace(MIXUP, seed=5), 2, 3, 8),
        draw_mix(MIXUP, 3, 3, 8),
        draw_mix(MIXUP, 2, 4, 8),
    ):
        assert other is not None
        assert other.share != first.share
    assert draw_mix(CONFIG, 2, 3, 8) is None


def test_mixup_blends_by_the_share() -> None:
    how = draw_mix(MIXUP, 0, 0, 6)
    assert how is not None
    for batch in (torch.rand(6, 5), torch.rand(6, 3, 4, 4)):
        expected = how.share * batch + (1 - how.share) * batch[how.partner]
        torch.testing.assert_close(mix(batch, how), expected)


def test_cutmix_takes_a_rectangle_whose_area_is_what_the_share_says() -> None:
    levels = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 32, 32)
    shares = []
    for number in range(50):
        how = draw_mix(CUTMIX, 1, number, 6)
        assert how is not None
        mixed = mix(levels, how)
        own = mixed == levels
        kept = own.float().mean(dim=(1, 2, 3))
        elsewhere = torch.from_numpy(how.partner != np.arange(6))
        torch.testing.assert_close(kept[elsewhere], torch.full_like(kept[elsewhere], how.share))
        assert (kept[~elsewhere] == 1).all()
        assert torch.equal(mixed[~own], levels[how.partner].masked_select(~own))
        shares.append(how.share)
    assert min(shares) < 0.3
    assert max(shares) > 0.9


def test_both_take_turns() -> None:
    both = dataclasses.replace(MIXUP, cutmix=1.0)
    drawn = [draw_mix(both, 0, number, 4) for number in range(200)]
    assert 70 < sum(how is not None and how.box is not None for how in drawn) < 130


@pytest.mark.parametrize(("alpha", "spread"), [(0.2, 0.35), (10.0, 0.15)])
def test_alpha_says_how_even_mixtures_are(alpha: float, spread: float) -> None:
    drawn = [draw_mix(dataclasses.replace(CONFIG, mixup=alpha), 0, number, 2) for number in range(300)]
    shares = [how.share for how in drawn if how is not None]
    assert np.std(shares) > spread if alpha < 1 else np.std(shares) < spread
