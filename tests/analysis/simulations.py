"""What the tests of statistics share: random numbers, and whether intervals cover the truth."""

from __future__ import annotations

import numpy as np
from scipy import stats


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def options(seed: int = 0, resamples: int = 1000) -> dict:
    return {"resamples": resamples, "confidence": 0.95, "rng": rng(seed)}


def usual(trials: int, share: float = 0.95) -> tuple[float, float]:
    """Between what an event of this probability comes to pass in trials, but for 1 in 1000."""
    return stats.binom.interval(0.999, trials, share)


def check_coverage(hits: int, trials: int, naive_hits: int = -1) -> None:
    """Intervals cover the truth as often as they say, and naive ones less often."""
    low, high = usual(trials)
    assert low <= hits <= high
    assert naive_hits < low
