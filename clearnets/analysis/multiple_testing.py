"""P-values that are corrected for the number of metrics. Numpy.

Shape suffixes: M metrics, N permutations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def permutation_p_values(found_M: Floats, null_NM: Floats) -> tuple[Floats, Floats]:
    """Return p-values (M,) of each metric alone, and corrected over all metrics.

    The shares of the null at or above each statistic, and of the null's largest over metrics
    (Westfall and Young 1993). The observed statistic counts as one draw, so that no p-value is 0
    (Phipson and Smyth 2010). NaN where the statistic is.
    """
    largest_N = null_NM.max(axis=1, initial=0.0)
    draws = len(null_NM) + 1
    # Equal statistics may differ by rounding.
    floor_M = found_M - 1e-9
    alone_M = (1 + (null_NM >= floor_M).sum(axis=0)) / draws
    corrected_M = (1 + (largest_N[:, None] >= floor_M).sum(axis=0)) / draws
    missing_M = ~np.isfinite(found_M)
    return np.where(missing_M, np.nan, alone_M), np.where(missing_M, np.nan, corrected_M)


def holm(p_M: ArrayLike) -> Floats:
    """Return p-values (M,) corrected by Holm 1979; NaN does not count as a test."""
    p_M = np.asarray(p_M, np.float64)
    tests = np.flatnonzero(np.isfinite(p_M))
    order = tests[np.argsort(p_M[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted_M = np.full(len(p_M), np.nan)
    adjusted_M[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_M[order]))
    return adjusted_M
