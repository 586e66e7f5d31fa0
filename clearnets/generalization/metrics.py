"""How sparse and how spread activations, latents and weights are, and how stable latents. Numpy.

A row is one instance; the caller says whether that is a token, a patch or a whole picture with its
positions side by side. Where a metric has no value (no variance, only inactive latents) it is NaN.

Two definitions differ from the original's (EleutherAI/clearnets): its `gini` is divided by L² once
more, and its `hoyer` is the bare ratio of norms.

Shape suffixes: N rows, k active latents of a row, L latents, D dimensions, S singular values,
A and B the latents of two coders.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
NAN = float("nan")


def activation_metrics(acts_ND: ArrayLike) -> dict[str, float]:
    """Return how the norms of activations are distributed, and the trace of their covariance.

    Norms are in the units of the activations; see `moments`. `variance_trace` is the sum over
    dimensions of the population variance, in squared units.
    """
    acts_ND = np.asarray(acts_ND, np.float64)
    of_norms = moments(np.linalg.norm(acts_ND, axis=1))
    return {
        **{f"norm_{name}": value for name, value in of_norms.items()},
        "variance_trace": _squares(acts_ND) / len(acts_ND),
    }


def latent_metrics(
    acts_Nk: ArrayLike, indices_Nk: ArrayLike, *, num_latents: int
) -> dict[str, float]:
    """Return the sparsity of latents of which only the selected ones are given, each once per row.

    A latent that is selected with the value 0 is inactive. `l0` is the mean number of active
    latents of a row, `dead` the share of latents that are active in none. `entropy`, `hoyer` and
    `gini` are of the mean activations: over how many latents a network's activity is spread.
    """
    acts = np.asarray(acts_Nk, np.float64).reshape(-1)
    indices = np.asarray(indices_Nk, np.int64).reshape(-1)
    count = len(np.asarray(acts_Nk))
    mean_L = np.bincount(indices, acts, num_latents) / count
    active_L = np.bincount(indices[acts != 0], minlength=num_latents)
    return {
        "l0": float(active_L.sum()) / count,
        "dead": float((active_L == 0).mean()),
        "entropy": entropy(mean_L),
        "hoyer": hoyer(mean_L),
        "gini": gini(mean_L),
    }


def moments(values_N: ArrayLike) -> dict[str, float]:
    """Return mean, population variance, skewness and excess kurtosis.

    Fisher's g1 and g2 as in `scipy.stats`, but NaN without a warning where all values are equal.
    """
    x_N = np.asarray(values_N, np.float64)
    mean = float(x_N.mean())
    centred_N = x_N - mean
    square_N = centred_N * centred_N
    variance = float(square_N.sum()) / len(x_N)
    # What rounding leaves of equal values is no spread.
    spread = variance if variance > (8 * np.finfo(float).eps * mean) ** 2 else 0.0
    third, fourth = ((square_N * power_N).sum() / len(x_N) for power_N in (centred_N, square_N))
    return {
        "mean": mean,
        "variance": variance,
        "skewness": _ratio(third, spread**1.5),
        "kurtosis": _ratio(fourth, spread**2) - 3,
    }


def fvu(target_ND: ArrayLike, output_ND: ArrayLike) -> float:
    """Return the fraction of variance unexplained: 1 - R² about the target's mean over all rows.

    No units, at least 0; 1 is what the constant mean reaches. `sklearn.metrics.r2_score` with
    `multioutput="variance_weighted"`. sparsify's own figure is about the mean of each batch.
    """
    target_ND = np.asarray(target_ND, np.float64)
    residual = np.square(target_ND - np.asarray(output_ND, np.float64)).sum()
    return _ratio(float(residual), _squares(target_ND))


def entropy(values_L: ArrayLike) -> float:
    """Return the Shannon entropy of the magnitudes' shares of their sum, in nats, from 0 to ln L.

    0: one latent has all; ln L: all have the same. The original's `abs_entropy`.
    """
    return float(stats.entropy(_magnitudes(values_L)))


def hoyer(values_L: ArrayLike) -> float:
    """Return Hoyer's sparsity (√L - l1/l2) / (√L - 1): 0 where all are equal, 1 for one alone.

    No units. Source: Hoyer 2004.
    """
    x_L = _magnitudes(values_L)
    root = np.sqrt(len(x_L))
    return _ratio(root - _ratio(float(x_L.sum()), float(np.linalg.norm(x_L))), root - 1)


def gini(values_L: ArrayLike) -> float:
    """Return the Gini coefficient of the magnitudes, from 0 (equal) to (L - 1)/L (one alone).

    Half the mean absolute difference over the mean: Σ|x_i - x_j| / (2 L² mean). No units. Source:
    Gini 1912; as a measure of sparsity Hurley and Rickard 2009.
    """
    x_L = _magnitudes(values_L)
    n = len(x_L)
    ranks = 2 * np.arange(1, n + 1) - n - 1
    return _ratio(float(ranks @ np.sort(x_L)), n * float(x_L.sum()))


def parameter_norm(parameters: Iterable[ArrayLike]) -> float:
    """Return the Euclidean norm of all parameters together, in their units, at least 0."""
    return float(np.sqrt(sum(np.square(np.asarray(p, np.float64)).sum() for p in parameters)))


def singular_values(weight: ArrayLike) -> Floats:
    """Return the singular values (S,), largest first, of a weight of two or more dimensions.

    Weights of more than two (convolutions) count as a matrix of out × all others.
    """
    matrix = np.asarray(weight, np.float64)
    return np.linalg.svdvals(matrix.reshape(len(matrix), -1))


def effective_rank(values_S: ArrayLike) -> float:
    """Return exp of the entropy of the singular values' shares of their sum, from 1 to S.

    Source: Roy and Vetterli 2007. Of a matrix with r equal singular values and no others it is r.
    """
    return float(np.exp(entropy(values_S)))


def stable_rank(values_S: ArrayLike) -> float:
    """Return the squared Frobenius norm over the squared spectral norm, Σσ²/σ₁², from 1 to S.

    Source: Rudelson and Vershynin 2007. At most the rank; small singular values hardly count.
    """
    squares_S = np.square(np.asarray(values_S, dtype=np.float64))
    return _ratio(float(squares_S.sum()), float(squares_S.max(initial=0.0)))


def matched_cosine(first_AD: ArrayLike, second_BD: ArrayLike) -> float:
    """Return the mean cosine of latents and their counterparts in another coder, from -1 to 1.

    Latents (rows: decoder directions) are matched one to one so that the sum of cosines is largest
    (the Hungarian problem); with unequal numbers the surplus stays out. Between the coders of
    neighbouring checkpoints it is the features' stability: 1 where they are the same up to order.
    Two SAEs that begin with the same weights and see the same rows, as those of neighbouring
    checkpoints do, share a part of this whatever they learn; it is no absolute measure of what the
    network keeps. A direction of zero length has cosine 0 with all. Takes A × B numbers of memory.

    Source: Paulo and Belrose 2025, who match the coders of two seeds so.
    """
    cosines_AB = _unit(first_AD) @ _unit(second_BD).T
    if not cosines_AB.size:
        return NAN
    rows, columns = optimize.linear_sum_assignment(cosines_AB, maximize=True)
    return float(cosines_AB[rows, columns].mean())


def _unit(rows_AD: ArrayLike) -> Floats:
    rows_AD = np.asarray(rows_AD, dtype=np.float64)
    length_A = np.linalg.norm(rows_AD, axis=1, keepdims=True)
    return np.divide(rows_AD, length_A, out=np.zeros_like(rows_AD), where=length_A > 0)


def _squares(values_ND: Floats) -> float:
    """Return the sum of squares about the mean over rows."""
    return float(np.square(values_ND - values_ND.mean(axis=0)).sum(axis=0).sum())


def _magnitudes(values_L: ArrayLike) -> Floats:
    """Return absolute values; NaN throughout where all are 0, which have no shares."""
    x_L = np.abs(np.asarray(values_L, dtype=np.float64))
    return x_L if x_L.any() else np.full_like(x_L, NAN)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else NAN
