"""Tells the rate behind a count of successes: exact binomial tails and Clopper-Pearson intervals."""

from __future__ import annotations

import math

import numpy as np

CONFIDENCE = 0.95
_HALVINGS = 50  # of the unit interval: far below what a count can tell


def at_most(successes: int, trials: int, rate: float) -> float:
    """Return the probability of at most so many successes in independent trials that each succeed at `rate`."""
    if successes >= trials or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    number = np.arange(1, successes + 1)
    steps = np.log((trials - number + 1) / number) + math.log(rate) - math.log1p(-rate)
    # Logarithms, for a term of thousands of trials is smaller than any float.
    terms = np.concatenate([[0.0], np.cumsum(steps)]) + trials * math.log1p(-rate)
    largest = float(terms.max())
    return min(1.0, math.exp(largest) * float(np.exp(terms - largest).sum()))


def interval(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return lower and upper bound of the rate (Clopper & Pearson 1934); (0, 1) where nothing was tried."""
    return 1 - _upper(trials - successes, trials, confidence), _upper(successes, trials, confidence)


def shows(successes: int, trials: int, rate: float, confidence: float = CONFIDENCE) -> bool:
    """Return whether the lower bound of `interval` is `rate` or more."""
    return trials > 0 and at_most(trials - successes, trials, 1 - rate) <= (1 - confidence) / 2


def least_trials(rate: float, confidence: float = CONFIDENCE) -> int:
    """Return how many trials, all of them successes, show the rate."""
    return math.ceil(math.log((1 - confidence) / 2) / math.log(rate))


def _upper(successes: int, trials: int, confidence: float) -> float:
    if successes >= trials:
        return 1.0
    low, high = successes / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_most(successes, trials, middle) > (1 - confidence) / 2:
            low = middle
        else:
            high = middle
    return high
