"""Choose the k largest numbers of each row, exactly.

On a CPU torch's `topk` goes through a row one number after the other. Here the row is cut into
groups: the k largest are among the k groups with the largest maxima, and maxima of groups and the
k-th largest of a short row come from vector instructions (torch's `amax`, numpy's `partition`).
The k-th largest is one value, however it is found, so no result depends on the processor.

Shapes: N rows, L numbers in each, G groups, S = L / G numbers per group, K chosen ones (k).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_WORTH = 2
"""Groups are used where at most the L / 2 numbers in the k best ones are left to look at."""


def top_k(pre_NL: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest numbers of each row, and their places (int64), in no order.

    On a tie any of the equal ones is taken, always the same on one kind of device.
    """
    num_rows, length = pre_NL.shape
    groups = _groups(length, k)
    if pre_NL.device.type != "cpu" or pre_NL.dtype != torch.float32 or not groups or not num_rows:
        return pre_NL.topk(k, dim=-1, sorted=False)
    pre_NSG = pre_NL.contiguous().view(num_rows, -1, groups)
    best_NK = _places(pre_NSG.amax(1), k)
    if best_NK is None:
        return pre_NL.topk(k, dim=-1, sorted=False)
    size = length // groups
    left_NSK = pre_NSG.gather(2, best_NK[:, None, :].expand(num_rows, size, k))
    left_NC = left_NSK.view(num_rows, size * k)
    places_NK = _places(left_NC, k)
    if places_NK is None:
        return pre_NL.topk(k, dim=-1, sorted=False)
    row_NK = places_NK.div(k, rounding_mode="floor")
    indices_NK = best_NK.gather(1, places_NK - row_NK * k).add_(row_NK, alpha=groups)
    return left_NC.gather(1, places_NK), indices_NK


def _groups(length: int, k: int) -> int:
    """Return the number of groups, a power of two; 0 where none is worth it.

    The fewest numbers are looked at with about sqrt(k L) groups.
    """
    groups = 1
    while length % (2 * groups) == 0 and (2 * groups) ** 2 <= k * length:
        groups *= 2
    return groups if k < groups and _WORTH * k <= groups else 0


def _places(values_NL: Tensor, k: int) -> Tensor | None:
    """Return where in each row the k largest are, (N, K) in ascending order; None on a tie."""
    values = values_NL.numpy()
    least_N1 = np.partition(values, -k, axis=1)[:, -k, None]
    places = np.flatnonzero(values >= least_N1)
    if len(places) != k * len(values):
        return None
    starts_N1 = np.arange(0, values.size, values.shape[1])[:, None]
    return torch.from_numpy(places.reshape(-1, k) - starts_N1)
