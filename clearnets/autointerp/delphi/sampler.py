"""delphi's sampler of active windows (0.1.3), draw for draw.

Windows to explain and windows to score come from one pool, and each draw begins with the same
random numbers. So a latent is scored in part on windows that its explainer has seen: of 50 some 10
to 20, and more the fewer windows it is active in. Where a quantile holds fewer windows than wanted,
all of it are taken; the remainder of a division belongs to no quantile.

Source: `delphi/latents/samplers.py`, whose functions these equal draw for draw.
"""

from __future__ import annotations

import random
from typing import Literal

import numpy as np

# delphi's; its configuration cannot change it.
SEED = 22


def train(
    strongest_A: np.ndarray,
    count: int,
    *,
    how: Literal["top", "random", "quantiles", "mix"],
    quantiles: int,
    ratio_top: float,
) -> np.ndarray:
    """Return the windows that the explainer sees.

    Args:
        strongest_A: all active windows, the strongest first.
        count: windows wanted; there may be fewer.
        how, quantiles, ratio_top: as in `clearnets.latents.examples.choose`.
    """
    if how == "top":
        return strongest_A[:count]
    if how == "random":
        there = len(strongest_A)
        drawn = range(there) if there < count else random.Random(SEED).sample(range(there), count)
        return strongest_A[list(drawn)]
    top = int(count * ratio_top) if how == "mix" else 0
    rest = int(count * (1 - ratio_top)) if how == "mix" else count
    return np.concatenate([strongest_A[:top], test(strongest_A[top:], rest, quantiles=quantiles)])


def test(strongest_A: np.ndarray, count: int, *, quantiles: int) -> np.ndarray:
    """Return the windows that explanations are scored on: equal shares from each quantile."""
    rng = random.Random(SEED)
    size, share = len(strongest_A) // quantiles, count // quantiles
    drawn: list[int] = []
    for first in range(0, size * quantiles, size or 1):
        part = range(first, first + size)
        drawn += part if size < share else rng.sample(part, share)
    return strongest_A[drawn]
