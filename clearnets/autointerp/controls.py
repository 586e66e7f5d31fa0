"""Controls of automatic interpretation that need no model."""

from __future__ import annotations

import numpy as np


def derangement(count: int, *, seed: int) -> np.ndarray | None:
    """A permutation that leaves nothing in its place, or None where there are fewer than two.

    It is one cycle through all, drawn uniformly from those (Sattolo 1986), so that each of
    `count` latents is judged by another one's explanation and each explanation is used once.
    """
    if count < 2:
        return None
    rng = np.random.default_rng(seed)
    cycle = rng.permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[cycle] = np.roll(cycle, -1)
    return other
