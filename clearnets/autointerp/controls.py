"""Controls of automatic interpretation that need no model."""

from __future__ import annotations

import numpy as np


def derangements(count: int, *, times: int, seed: int) -> list[np.ndarray]:
    """Permutations that leave nothing in its place, no two of which agree anywhere.

    They are the rotations of one cycle through all, drawn uniformly (Sattolo 1986). In each, every
    one of `count` latents is judged by another one's explanation and each explanation is used
    once.

    Returns:
        `times` of them, or as many as there are: `count` - 1.
    """
    cycle = np.random.default_rng(seed).permutation(count)
    found = []
    for shift in range(1, min(times, count - 1) + 1):
        other = np.empty(count, dtype=np.int64)
        other[cycle] = np.roll(cycle, -shift)
        found.append(other)
    return found
