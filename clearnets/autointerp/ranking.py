"""ROC curves, and the area under them: how well a number ranks positives above negatives.

The area is the share of pairs of a positive and a negative in which the positive has the higher
value, ties counting half (Mann and Whitney's U).

Shape suffixes: N items that are ranked, E ways to rank them, T choices of which are positive, G
shares of the negatives.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def areas(value_EN: np.ndarray, positive_TN: np.ndarray) -> np.ndarray:
    """Return the area (T, E) of each ranking for each choice, which has positives and negatives."""
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
    """Return the area of one ranking, to six digits; None without positives or negatives."""
    if positive_x.all() or not positive_x.any():
        return None
    return round(float(areas(value_x[None], positive_x[None])[0, 0]), 6)


def curves(value_N: np.ndarray, positive_TN: np.ndarray, share_G: np.ndarray) -> np.ndarray:
    """Return the ROC of one ranking for each choice, (T, G): the share of the positives among the
    items ranked first, where these hold each share of the negatives. Straight between distinct
    values, as the area counts ties; at a step, its upper end."""
    order_N = np.argsort(-value_N, kind="stable")
    last_K = np.flatnonzero(np.append(np.diff(value_N[order_N]) != 0, True))
    # 32 bits halve what is read and written; there is one value per item, but for ties.
    above_TN = np.zeros((len(positive_TN), len(value_N) + 1), np.int32)
    np.cumsum(positive_TN[:, order_N], axis=1, dtype=np.int32, out=above_TN[:, 1:])
    ends_K = np.append(0, last_K + 1)
    above_TK = above_TN if len(ends_K) == above_TN.shape[1] else above_TN[:, ends_K]
    negatives_TK = ends_K.astype(np.int32) - above_TK
    found_TG = np.stack(
        [
            np.interp(share_G * negative_K[-1], negative_K, above_K)
            for negative_K, above_K in zip(negatives_TK, above_TK)
        ]
    )
    return found_TG / positive_TN.sum(axis=1)[:, None]


def mean_of_others(values_NN: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of each row without the diagonal; nan where a row has nothing else."""
    others = len(values_NN) - 1
    return (values_NN.sum(axis=1) - values_NN.diagonal()) / (others or np.nan)
