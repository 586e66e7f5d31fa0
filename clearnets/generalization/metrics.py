"""How sparse, how spread and how stable activations, latents and weights are. Pure numpy.

What is measured over data is accumulated in float64 by sufficient statistics: `add` a batch,
divide once at the end. Moments are kept about the running mean and merged by Chan's and Pébay's
formulas, so a result depends on the rows alone and not on how they were batched, up to the last
digits of a float64.

A row is one instance; the caller says whether that is a token, a patch or a whole picture with its
positions side by side. Where a metric has no value (no rows, no variance, latents that are all
silent) it is NaN.

Shape suffixes: N rows, k active latents of a row, L latents, D dimensions, S singular values,
A and B the latents of two coders.

`reference_compat=True` gives the value that the original's formula gives (EleutherAI/clearnets):
its `gini` divides by n² twice, its `hoyer` is the bare ratio of norms, and its variance, skewness
and kurtosis of norms have n - 1 in the variance. The original also averages those over batches,
which depends on the batching and has no counterpart: give it one batch to compare.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NAN = float("nan")


class Moments:
    """Count, mean and central sums up to the fourth power of scalars, over batches.

    Source: Chan, Golub and LeVeque 1983; Pébay 2008 for the third and fourth power.
    """

    def __init__(self) -> None:
        self.count = 0
        self.average = 0.0
        # Sums of (x - average)^2, ^3, ^4 over the rows.
        self.sum2 = self.sum3 = self.sum4 = 0.0

    def add(self, values_N: ArrayLike) -> None:
        """Take in a batch of values."""
        x_N = np.asarray(values_N, dtype=np.float64).reshape(-1)
        if not len(x_N):
            return
        batch = Moments()
        batch.count, batch.average = len(x_N), float(x_N.mean())
        centred_N = x_N - batch.average
        square_N = centred_N * centred_N
        batch.sum2 = float(square_N.sum())
        batch.sum3 = float((square_N * centred_N).sum())
        batch.sum4 = float((square_N * square_N).sum())
        self.merge(batch)

    def merge(self, other: Moments) -> None:
        """Take in all values of `other`."""
        a, b = self.count, other.count
        if not b:
            return
        n, delta = a + b, other.average - self.average
        self.sum4 += (
            other.sum4
            + delta**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * delta**2 * (a * a * other.sum2 + b * b * self.sum2) / n**2
            + 4 * delta * (a * other.sum3 - b * self.sum3) / n
        )
        self.sum3 += (
            other.sum3
            + delta**3 * a * b * (a - b) / n**2
            + 3 * delta * (a * other.sum2 - b * self.sum2) / n
        )
        self.sum2 += other.sum2 + delta**2 * a * b / n
        self.average += delta * b / n
        self.count = n

    def mean(self) -> float:
        """Mean, in the units of the values."""
        return self.average if self.count else NAN

    def variance(self, *, reference_compat: bool = False) -> float:
        """Population variance (over n), at least 0; over n - 1 as in the original if so asked."""
        return _ratio(self.sum2, self.count - reference_compat)

    def skewness(self, *, reference_compat: bool = False) -> float:
        """Third standardised moment, no units, any sign; 0 for symmetric values.

        Fisher's g1, `scipy.stats.skew`; the original has the variance over n - 1.
        """
        spread = self._spread(reference_compat)
        return _ratio(_ratio(self.sum3, self.count), spread**1.5)

    def kurtosis(self, *, reference_compat: bool = False) -> float:
        """Excess kurtosis, no units, at least -2; 0 for normal values.

        Fisher's g2, `scipy.stats.kurtosis`; the original has the variance over n - 1.
        """
        spread = self._spread(reference_compat)
        return _ratio(_ratio(self.sum4, self.count), spread**2) - 3

    def _spread(self, reference_compat: bool) -> float:
        """The variance; 0 where it is what rounding leaves of equal values."""
        variance = self.variance(reference_compat=reference_compat)
        return variance if variance > (8 * np.finfo(float).eps * self.average) ** 2 else 0.0


class Variances:
    """Count, mean (D,) and sum of squares about it (D,) of vectors, over batches.

    Source: Chan, Golub and LeVeque 1983.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean_D: Floats = np.zeros(size)
        self.squares_D: Floats = np.zeros(size)

    def add(self, values_ND: ArrayLike) -> None:
        """Take in a batch of rows."""
        x_ND = np.asarray(values_ND, dtype=np.float64)
        if len(x_ND):
            mean_D = x_ND.mean(axis=0)
            self.add_sums(len(x_ND), mean_D, np.square(x_ND - mean_D).sum(axis=0))

    def add_sums(self, count: int, mean_D: Floats, squares_D: Floats) -> None:
        """Take in `count` rows by their mean and their sum of squares about it."""
        if not count:
            return
        n, delta_D = self.count + count, mean_D - self.mean_D
        self.squares_D = self.squares_D + squares_D + delta_D**2 * (self.count * count / n)
        self.mean_D = self.mean_D + delta_D * (count / n)
        self.count = n

    def trace(self) -> float:
        """Trace of the covariance matrix: the sum over dimensions of the population variance.

        In squared units of the values, at least 0.
        """
        return _ratio(float(self.squares_D.sum()), self.count)


class Reconstruction:
    """How much of its target a coder leaves unexplained, over batches."""

    def __init__(self, size: int) -> None:
        self.target = Variances(size)
        self.residual = 0.0

    def add(self, target_ND: ArrayLike, output_ND: ArrayLike) -> None:
        """Take in the rows of a batch and what the coder made of them."""
        target_ND = np.asarray(target_ND, dtype=np.float64)
        self.target.add(target_ND)
        self.residual += float(np.square(target_ND - np.asarray(output_ND, np.float64)).sum())

    def fvu(self) -> float:
        """Fraction of variance unexplained: 1 - R² about the target's mean over *all* rows.

        No units, at least 0; 1 is what the constant mean reaches. `sklearn.metrics.r2_score` with
        `multioutput="variance_weighted"`. sparsify's own figure is about the mean of each batch.
        """
        return _ratio(self.residual, float(self.target.squares_D.sum()))


class Latents:
    """Sparsity and spread of L latents over batches; also of plain activations, as dense rows."""

    def __init__(self, num_latents: int) -> None:
        self.acts = Variances(num_latents)
        self.active_L: Ints = np.zeros(num_latents, dtype=np.int64)
        self.norms = Moments()

    def add(self, acts_NL: ArrayLike) -> None:
        """Take in a batch with a value for every latent."""
        acts_NL = np.asarray(acts_NL, dtype=np.float64)
        self.acts.add(acts_NL)
        self.active_L += (acts_NL != 0).sum(axis=0)
        self.norms.add(np.linalg.norm(acts_NL, axis=1))

    def add_sparse(self, acts_Nk: ArrayLike, indices_Nk: ArrayLike) -> None:
        """Take in a batch of which only the active latents are given, each once per row.

        The same as `add` of the dense rows, without making them. A latent with value 0 is silent.
        """
        acts_Nk, indices_Nk = np.asarray(acts_Nk, np.float64), np.asarray(indices_Nk, np.int64)
        count, size = len(acts_Nk), len(self.active_L)
        if not count:
            return
        where = indices_Nk.reshape(-1)
        mean_L = np.bincount(where, acts_Nk.reshape(-1), size) / count
        given_L = np.bincount(where, minlength=size)
        # Squares about the mean, of what is given and of the silent rest, so that nothing cancels.
        about_L = np.bincount(where, np.square(acts_Nk.reshape(-1) - mean_L[where]), size)
        self.acts.add_sums(count, mean_L, about_L + (count - given_L) * mean_L**2)
        self.active_L += np.bincount(where[acts_Nk.reshape(-1) != 0], minlength=size)
        self.norms.add(np.linalg.norm(acts_Nk, axis=1))

    def l0(self) -> float:
        """Mean number of latents of a row that are not 0, from 0 to L."""
        return _ratio(float(self.active_L.sum()), self.acts.count)

    def dead(self) -> float:
        """Share of latents that are 0 in all rows, from 0 to 1."""
        return float((self.active_L == 0).mean()) if self.acts.count else NAN

    def summary(self, *, reference_compat: bool = False) -> dict[str, float]:
        """Every metric of this class by name, in the units that its function states."""
        compat = reference_compat
        mean_L = self.acts.mean_D if self.acts.count else np.full_like(self.acts.mean_D, NAN)
        return {
            "l0": self.l0(),
            "dead": self.dead(),
            "entropy": entropy(mean_L),
            "hoyer": hoyer(mean_L, reference_compat=compat),
            "gini": gini(mean_L, reference_compat=compat),
            "norm_mean": self.norms.mean(),
            "norm_variance": self.norms.variance(reference_compat=compat),
            "norm_skewness": self.norms.skewness(reference_compat=compat),
            "norm_kurtosis": self.norms.kurtosis(reference_compat=compat),
            "variance_trace": self.acts.trace(),
        }


def entropy(values_L: ArrayLike) -> float:
    """Shannon entropy of the magnitudes as shares of their sum, in nats, from 0 to ln L.

    0: one latent has all; ln L: all have the same. Of the mean activations it says over how many
    latents a network's activity is spread. Same formula as the original's `abs_entropy`.
    """
    return float(stats.entropy(_magnitudes(values_L)))


def hoyer(values_L: ArrayLike, *, reference_compat: bool = False) -> float:
    """Hoyer's sparsity (√L - l1/l2) / (√L - 1), no units: 0 where all are equal, 1 for one alone.

    Source: Hoyer 2004. The original has l1/l2, which falls from √L to 1 as sparsity rises.
    """
    x_L = _magnitudes(values_L)
    ratio = _ratio(float(x_L.sum()), float(np.linalg.norm(x_L)))
    if reference_compat:
        return ratio
    root = np.sqrt(len(x_L))
    return _ratio(root - ratio, root - 1)


def gini(values_L: ArrayLike, *, reference_compat: bool = False) -> float:
    """Gini coefficient of the magnitudes, no units, from 0 (equal) to (L - 1)/L (one alone).

    Half the mean absolute difference over the mean: Σ|x_i - x_j| / (2 L² mean). Source: Gini 1912;
    as a measure of sparsity Hurley and Rickard 2009. The original divides by L² once more, and
    takes values with their sign.
    """
    x_L = np.asarray(values_L, dtype=np.float64) if reference_compat else _magnitudes(values_L)
    n = len(x_L)
    ranks = 2 * np.arange(1, n + 1) - n - 1
    value = _ratio(float(ranks @ np.sort(x_L)), n * float(x_L.sum()))
    return value / n**2 if reference_compat else value


def parameter_norm(parameters: Iterable[ArrayLike]) -> float:
    """Euclidean norm of all parameters together, in their units, at least 0."""
    return float(np.sqrt(sum(np.square(np.asarray(p, np.float64)).sum() for p in parameters)))


def singular_values(weight: ArrayLike, initial: ArrayLike | None = None) -> Floats:
    """Singular values (S,), largest first, of a matrix or of its change since `initial`.

    Weights of more than two dimensions (convolutions) count as out × all others.

    Raises:
        ValueError: the weight has fewer than two dimensions, or other sizes than `initial`.
    """
    matrix: Any = np.asarray(weight, dtype=np.float64)
    if matrix.ndim < 2:
        raise ValueError(f"singular values are those of a matrix, not of shape {matrix.shape}")
    if initial is not None:
        start = np.asarray(initial, dtype=np.float64)
        if start.shape != matrix.shape:
            raise ValueError(f"a weight of shape {matrix.shape} did not start as {start.shape}")
        matrix = matrix - start
    return np.linalg.svdvals(matrix.reshape(len(matrix), -1))


def effective_rank(values_S: ArrayLike) -> float:
    """exp of the entropy of the singular values as shares of their sum, from 1 to S.

    Source: Roy and Vetterli 2007. Of a matrix with r equal singular values and no others it is r.
    """
    return float(np.exp(entropy(values_S)))


def stable_rank(values_S: ArrayLike) -> float:
    """Squared Frobenius norm over squared spectral norm, Σσ²/σ₁², from 1 to S.

    Source: Rudelson and Vershynin 2007. At most the rank; small singular values hardly count.
    """
    squares_S = np.square(np.asarray(values_S, dtype=np.float64))
    return _ratio(float(squares_S.sum()), float(squares_S.max(initial=0.0)))


def matched_cosine(first_AD: ArrayLike, second_BD: ArrayLike) -> float:
    """Mean cosine of latents and their counterparts in another coder, from -1 to 1.

    Latents (rows: decoder directions) are matched one to one so that the sum of cosines is largest
    (the Hungarian problem); with unequal numbers the surplus stays out. Between the coders of
    neighbouring checkpoints it is the features' stability: 1 where they are the same up to order.
    Two SAEs that begin with the same weights and see the same rows, as those of neighbouring
    checkpoints do, share a part of this whatever they learn; it is no absolute measure of what the
    network keeps.
    A direction of zero length has cosine 0 with all. Takes A × B numbers of memory.

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


def _magnitudes(values_L: ArrayLike) -> Floats:
    """Absolute values; NaN throughout where all are 0, which have no shares."""
    x_L = np.abs(np.asarray(values_L, dtype=np.float64))
    return x_L if x_L.any() else np.full_like(x_L, NAN)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else NAN
