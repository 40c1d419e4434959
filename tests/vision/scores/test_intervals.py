"""Binomial tails against sums of their terms, and intervals against published ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.vision.scores.intervals import at_most, interval, least_trials, shows


@pytest.mark.parametrize(("trials", "rate"), [(1, 0.3), (10, 0.5), (60, 0.05), (200, 0.9)])
def test_tails_are_sums_of_their_terms(trials: int, rate: float) -> None:
    terms = [math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(trials + 1)]
    for successes in range(trials + 1):
        assert at_most(successes, trials, rate) == pytest.approx(sum(terms[: successes + 1]), abs=1e-12)
    assert at_most(0, trials, 0.0) == 1.0
    assert at_most(trials - 1, trials, 1.0) == 0.0


def test_many_trials_do_not_underflow() -> None:
    assert at_most(50_000, 100_000, 0.5) == pytest.approx(0.5 + 0.5 * 0.0025, abs=1e-4)  # and half the middle term
    assert 0 < at_most(4_000, 100_000, 0.05) < 1e-40


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (5, 10, 0.1871, 0.8129), (95, 100, 0.8872, 0.9836), (0, 0, 0, 1)],
)
def test_intervals_are_those_of_clopper_and_pearson(successes: int, trials: int, low: float, high: float) -> None:
    assert interval(successes, trials) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_an_interval_holds_the_rate_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(0).binomial(80, 0.93, 4000)
    held = [low <= 0.93 <= high for low, high in (interval(int(one), 80) for one in drawn)]
    assert 0.95 <= np.mean(held) < 0.995


def test_a_rate_is_shown_where_the_lower_bound_reaches_it() -> None:
    for successes in range(1, 81):
        low, _ = interval(successes, 80)
        assert shows(successes, 80, low - 1e-9)
        assert not shows(successes, 80, low + 1e-9)
    assert not shows(0, 0, 0.5)
    for rate in (0.5, 0.9, 0.98, 0.9999):
        least = least_trials(rate)
        assert shows(least, least, rate)
        assert not shows(least - 1, least - 1, rate)
