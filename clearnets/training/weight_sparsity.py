"""Train a language model whose weight matrices are mostly zeros.

After "Weight-sparse transformers have interpretable circuits" (Gao et al. 2025): after each step
only the weights of largest magnitude are kept in every matrix of the layers. The share that is kept
falls linearly from all to `weight_share` over the first half of training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ANNEALED = 0.5
"""Share of the steps over which the share of weights falls."""


def kept_share(weight_share: float, step: int, steps: int) -> float:
    """Return the share of weights that is kept after a step.

    >>> [kept_share(0.1, step, 8) for step in (0, 2, 4, 8)]
    [1.0, 0.55, 0.1, 0.1]
    """
    return 1 - (1 - weight_share) * min(1.0, step / (ANNEALED * steps))


@torch.no_grad()
def keep_largest(model: Any, optimizer: Any, step: int, steps: int) -> None:
    """Set the smallest weights of a model of few weights to zero; leave any other model alone.

    Both the weights in use and the iterate of the schedule-free optimizer are set to zero, and so
    their average is.
    """
    if model.config.mlp != "dense_weight_sparse":
        return
    share = kept_share(model.config.weight_share, step, steps)
    for weight in matrices(model):
        mask = _largest(weight, share)
        weight *= mask
        optimizer.state[weight]["z"] *= mask


def matrices(model: Any) -> list[nn.Parameter]:
    """Return the weight matrices of all layers; the embeddings are none of them."""
    return [weight for weight in model.base_model.layers.parameters() if weight.ndim == 2]


def _largest(weight: Tensor, share: float) -> Tensor:
    """Return 1 where a share of the weights, the largest by magnitude, are, and 0 elsewhere."""
    sizes = weight.abs().flatten()
    gone = len(sizes) - max(1, round(share * len(sizes)))
    if not gone:
        return torch.ones_like(weight)
    return (weight.abs() > sizes.kthvalue(gone).values).to(weight.dtype)
