"""How many latents of an adder's feedforward its answers need, and how evenly they share the work.

Latents are the neurons of a dense feedforward, or those of one that is sparse by construction. Its
only position is that of the answer, and all that follows is linear; so a latent writes a row of W
into the logits. Ablated latents have a base in the place of their value: zero, or their value at
another pair, drawn at random (patch).

Shapes: N pairs, P classes, L latents.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor
from torch.nn import functional

from clearnets.generalization.addition import Adder, DenseMLP, SparseMLP

STEPS = 8
"""Of integrated gradients."""
RECOVERED = 0.9
"""Share of what all latents lower the loss by that a circuit has to lower it by."""
LEAST = 0.05
"""Nats by which all latents have to lower the loss; else there is no circuit to look for."""


class Latents(NamedTuple):
    """What the latents of a feedforward do to the logits: rest_NP + code_NL @ weight_LP."""

    code_NL: np.ndarray
    weight_LP: np.ndarray
    rest_NP: np.ndarray

    def logits(self, code_NL: np.ndarray) -> np.ndarray:
        """Return the logits (N, P) with other values."""
        return self.rest_NP + code_NL @ self.weight_LP


@torch.no_grad()
def latents(model: Adder, pairs_N2: Tensor) -> Latents:
    """Return the latents of a model on some pairs, in float64."""
    seen: list[Tensor] = []
    handle = model.mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        logits_NP = model(pairs_N2).double()
    finally:
        handle.remove()
    code_NL, weight_LD = _read(model.mlp, seen[0])
    weight_LP = weight_LD.double() @ model.W_U_DP.double()
    code_NL = code_NL.double()
    rest_NP = logits_NP - code_NL @ weight_LP
    return Latents(code_NL.numpy(), weight_LP.numpy(), rest_NP.numpy())


def _read(mlp: torch.nn.Module, x_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values of all latents (N, L) and what they write (L, D)."""
    if isinstance(mlp, SparseMLP):
        acts_NK, indices_NK = mlp.encoder(x_ND)
        weight_LD = mlp.decoder.weight
        return acts_NK.new_zeros(len(x_ND), len(weight_LD)).scatter(
            1, indices_NK, acts_NK
        ), weight_LD
    assert isinstance(mlp, DenseMLP)
    return functional.relu(torch.addmm(mlp.b_in_F, x_ND, mlp.W_in_DF)), mlp.W_out_FD


def measures(of: Latents, labels_N: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Return entropies in nats and sizes in latents, each by zero and by patch ablation."""
    bases = {"zero": np.zeros_like(of.code_NL), "patch": of.code_NL[rng.permutation(len(labels_N))]}
    found = {}
    for name, base_NL in bases.items():
        effect_L = effects(of, labels_N, base_NL)
        found[f"node_entropy_{name}"] = entropy(effect_L)
        found[f"circuit_size_{name}"] = circuit_size(of, labels_N, base_NL, effect_L)
    return found


def effects(of: Latents, labels_N: np.ndarray, base_NL: np.ndarray) -> np.ndarray:
    """Return by how many nats each latent lowers the mean loss, (L,): integrated gradients
    (Sundararajan et al. 2017) from the base to the values."""
    change_NL = of.code_NL - base_NL
    start_NP, way_NP = of.logits(base_NL), change_NL @ of.weight_LP
    at, weight = np.polynomial.legendre.leggauss(STEPS)
    slope_NP = np.zeros_like(start_NP)
    for share, part in zip((at + 1) / 2, weight / 2):
        logits_NP = start_NP + share * way_NP
        slope_NP += part * np.exp(logits_NP - logsumexp(logits_NP, axis=1, keepdims=True))
    slope_NP[np.arange(len(labels_N)), labels_N] -= 1
    return -(change_NL * (slope_NP @ of.weight_LP.T)).mean(0)


def entropy(effect_L: np.ndarray) -> float:
    """Return the entropy of the distribution of absolute effects over latents, in nats; not a
    number where there is no effect."""
    size_L = np.abs(effect_L)
    share_L = size_L[size_L > 0] / size_L.sum() if size_L.any() else np.array([np.nan])
    return float(-(share_L * np.log(share_L)).sum())


def circuit_size(
    of: Latents, labels_N: np.ndarray, base_NL: np.ndarray, effect_L: np.ndarray
) -> float:
    """Return how many latents of the largest effects recover `RECOVERED` of what all lower the loss
    by, with all others at their base; not a number where all lower it by less than `LEAST`.

    Found by bisection, as if more latents always recovered more.
    """
    order_L = np.argsort(-np.abs(effect_L), kind="stable")

    def loss(size: int) -> float:
        code_NL, own_Z = base_NL.copy(), order_L[:size]
        code_NL[:, own_Z] = of.code_NL[:, own_Z]
        logits_NP = of.logits(code_NL)
        right_N = logits_NP[np.arange(len(labels_N)), labels_N]
        return float((logsumexp(logits_NP, axis=1) - right_N).mean())

    none, every = loss(0), loss(len(order_L))
    if none - every < LEAST:
        return float("nan")
    few, enough = 0, len(order_L)
    while enough - few > 1:
        middle = (few + enough) // 2
        if none - loss(middle) >= RECOVERED * (none - every):
            enough = middle
        else:
            few = middle
    return float(enough)
