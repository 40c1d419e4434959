"""Learning rates, step by step."""

from __future__ import annotations

import itertools

import pytest

from app.vision.settings.config import Schedule, TrainConfig
from app.vision.training.checkpoint import Position
from app.vision.training.schedules import learning_rate, rate_of, watch_plateau


@pytest.mark.parametrize(
    ("schedule", "end"),
    [("constant", 1.0), ("plateau", 1.0), ("step", 0.01), ("cosine", 0.0), ("exponential", 0.01)],
)
def test_every_schedule_warms_up_to_its_peak_and_ends_where_it_should(schedule: Schedule, end: float) -> None:
    rates = [learning_rate(1.0, schedule, step, 200, 0.05) for step in range(200)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[0] < 0.1
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(end, abs=1e-3)


def test_exponential_falls_by_the_same_factor_in_every_step() -> None:
    rates = [learning_rate(1.0, "exponential", step, 100, 0.0) for step in range(100)]
    assert [after / before for before, after in itertools.pairwise(rates)] == pytest.approx([0.01**0.01] * 99)


def test_one_cycle_climbs_for_three_tenths_and_ends_far_below_where_it_began() -> None:
    rates = [learning_rate(2.0, "one_cycle", step, 101, 0.05) for step in range(101)]
    assert rates[0] == pytest.approx(2.0 / 25)
    assert rates[30] == max(rates) == pytest.approx(2.0)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[-1] == pytest.approx(2.0 / 25e4)
    assert learning_rate(2.0, "one_cycle", 0, 1, 0.05) > 0


@pytest.mark.parametrize(("warmup", "steps"), [(0.0, 0), (0.1, 20), (0.5, 100)])
def test_warm_up_lasts_as_long_as_asked(warmup: float, steps: int) -> None:
    rates = [learning_rate(1.0, "constant", step, 200, warmup) for step in range(200)]
    assert sum(rate < 1.0 for rate in rates) == steps


def test_a_plateau_of_three_epochs_costs_a_tenth_of_the_rate() -> None:
    config = TrainConfig("resnet18", learning_rate=1.0, schedule="plateau", warmup=0.0)
    position, rates = Position(), []
    for loss in (1.0, 0.9, 0.95, 0.9, 0.92, 0.8, 0.8, 0.8, 0.8, 0.7):
        watch_plateau(position, loss)
        rates.append(rate_of(config, position, 5, 10))
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])
