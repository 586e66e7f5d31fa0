"""How well a number ranks positives above negatives."""

from __future__ import annotations

import numpy as np


def area(value_x: np.ndarray, positive_x: np.ndarray) -> float | None:
    """Area under the ROC curve: how often a positive has a higher value than a negative, ties half.

    None where there are no positives or no negatives.
    """
    from scipy.stats import rankdata

    positives = int(positive_x.sum())
    negatives = len(positive_x) - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(value_x)[positive_x].sum() - positives * (positives + 1) / 2
    return round(float(ranks) / (positives * negatives), 6)
