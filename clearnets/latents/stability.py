"""Match the latents of two runs one to one by their activations on the same text.

Two latents are counterparts where the matching of the largest sum of Pearson correlations pairs
them (Paulo and Belrose 2025 match so by the cosine of weights, which only coders of one model have
in common). Correlations are over all counted tokens, at most of which a latent is silent. A run's
latents count as *shared* where their counterpart's correlation is high.

Shape suffixes: A latents of one run, B of the other, E entries of a layer, T tokens, D dimensions
of a weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array

from clearnets.latents.store import LayerCache

Floats = NDArray[np.float64]
NONE = -1


@dataclass(frozen=True)
class Activity:
    """Where the latents of a layer are active, among counted tokens.

    Attributes:
        acts_TL: activations, sparse, float64.
        tokens: T.
        latents: L.
    """

    acts_TL: csr_array
    tokens: int
    latents: int

    @classmethod
    def of(cls, cache: LayerCache, number_RS: NDArray[np.int64]) -> Activity:
        """Read a layer.

        Args:
            cache: its entries.
            number_RS: number of each token that counts, `NONE` at all other positions.
        """
        token_E = number_RS[cache.row, cache.position]
        keep_E = token_E >= 0
        tokens = int(number_RS.max(initial=NONE)) + 1
        entries = cache.act[keep_E].astype(np.float64), (token_E[keep_E], cache.latent[keep_E])
        size = cache.num_latents
        return cls(csr_array(entries, shape=(tokens, size)), tokens, size)

    @property
    def active_L(self) -> NDArray[np.int64]:
        """Tokens at which each latent is active."""
        return np.bincount(self.acts_TL.indices, minlength=self.latents)

    def moments(self) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of each latent over all tokens."""
        mean_L = self.acts_TL.sum(axis=0) / self.tokens
        square_L = self.acts_TL.power(2).sum(axis=0) / self.tokens
        return mean_L, np.sqrt(np.maximum(square_L - mean_L**2, 0))


def number_tokens(counted_RS: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the counted tokens of some rows, in their order; `NONE` everywhere else."""
    chosen_RS = np.zeros_like(counted_RS)
    chosen_RS[rows] = counted_RS[rows]
    return np.where(chosen_RS, np.cumsum(chosen_RS).reshape(chosen_RS.shape) - 1, NONE)


def correlations(one: Activity, other: Activity) -> Floats:
    """Return Pearson's correlation of each pair of latents, (A, B); 0 where either is constant."""
    mean_A, spread_A = one.moments()
    mean_B, spread_B = other.moments()
    product_AB = (one.acts_TL.T @ other.acts_TL).toarray() / one.tokens
    scale_AB = np.outer(spread_A, spread_B)
    there_AB = scale_AB > 0
    above_AB = product_AB - np.outer(mean_A, mean_B)
    return np.where(there_AB, above_AB / np.where(there_AB, scale_AB, 1), 0.0)


@dataclass(frozen=True)
class Matched:
    """The counterparts of a run's latents.

    Attributes:
        partner_A: the other run's latent, `NONE` where there is none left.
        correlation_A: of both, 0 without a partner.
    """

    partner_A: NDArray[np.int64]
    correlation_A: Floats


def match(correlation_AB: Floats) -> Matched:
    """Pair latents one to one, so that the sum of correlations is the largest."""
    rows, columns = linear_sum_assignment(correlation_AB, maximize=True)
    partner_A = np.full(len(correlation_AB), NONE)
    partner_A[rows] = columns
    correlation_A = np.zeros(len(correlation_AB))
    correlation_A[rows] = correlation_AB[rows, columns]
    return Matched(partner_A, correlation_A)


def cosines(weight_AD: NDArray, weight_BD: NDArray, partner_A: NDArray[np.int64]) -> Floats:
    """Return the cosine similarity of each latent's weights and its partner's; nan without one."""
    own_AD, other_AD = weight_AD.astype(np.float64), weight_BD.astype(np.float64)[partner_A]
    length_A = np.linalg.norm(own_AD, axis=1) * np.linalg.norm(other_AD, axis=1)
    known_A = (partner_A != NONE) & (length_A > 0)
    dot_A = np.einsum("ad,ad->a", own_AD, other_AD)
    return np.where(known_A, dot_A / np.where(known_A, length_A, 1), np.nan)
