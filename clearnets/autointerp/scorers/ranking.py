"""How well a number ranks positives above negatives: the area under the ROC curve.

It is the share of pairs of a positive and a negative in which the positive has the higher value,
ties counting half (Mann and Whitney's U).

Shape suffixes: N items that are ranked, E ways to rank them, T choices of which are positive.
"""

from __future__ import annotations

import numpy as np


def areas(value_EN: np.ndarray, positive_TN: np.ndarray) -> np.ndarray:
    """The area (T, E) of each ranking for each choice, which has positives and negatives."""
    from scipy.stats import rankdata

    rank_EN = rankdata(value_EN, axis=1)
    positives_T = positive_TN.sum(axis=1)
    negatives_T = positive_TN.shape[1] - positives_T
    assert (positives_T > 0).all()
    assert (negatives_T > 0).all()
    rank_sum_TE = positive_TN.astype(np.float64) @ rank_EN.T
    lowest_T = positives_T * (positives_T + 1) / 2
    return (rank_sum_TE - lowest_T[:, None]) / (positives_T * negatives_T)[:, None]


def area(value_x: np.ndarray, positive_x: np.ndarray) -> float | None:
    """The area of one ranking, to six digits; None where there are no positives or no negatives."""
    if positive_x.all() or not positive_x.any():
        return None
    return round(float(areas(value_x[None], positive_x[None])[0, 0]), 6)
