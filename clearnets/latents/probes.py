"""Linear probes for known concepts: on few latents, and on all dimensions of dense activations.

A k-sparse probe (Gurnee et al. 2023; SAEBench's sparse probing) is a logistic regression on the k
latents of a layer that correlate most with the concept, by the correlation's size. The layer is the
one in which a linear function of them explains most of the concept's variance. Both are chosen on
`concept_fit`, as is the threshold of the largest F1.

Shape suffixes: T tokens, L latents or dimensions of a layer, C concepts, K those that a probe
reads, P points of a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import expit

from clearnets.latents.concepts import f1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Of the squared weights of standardized features, as in scikit-learn's `C=1`.
PENALTY = 1.0
_STEPS, _CLOSE = 50, 1e-8
# Share of a feature's variance that is added to it where layers are compared.
_RIDGE = 1e-6
# Tokens of each class that a probe is fitted to, at most; evenly spaced.
MOST = 5_000


@dataclass(frozen=True)
class Features:
    """What probes of one layer may read.

    Attributes:
        fit_TL, test_TL: on both splits, sparse or not.
        truth_CT: which tokens of `concept_fit` are of which concept, float64.
    """

    fit_TL: csr_array | NDArray
    test_TL: csr_array | NDArray
    truth_CT: Floats

    @cached_property
    def mean_L(self) -> Floats:
        return np.asarray(self.fit_TL.mean(axis=0, dtype=np.float64))

    @cached_property
    def covariance_LL(self) -> Floats:
        double_TL = self.fit_TL.astype(np.float64)
        gram_LL = double_TL.T @ double_TL
        dense_LL = gram_LL if isinstance(gram_LL, np.ndarray) else gram_LL.toarray()
        return dense_LL / self.truth_CT.shape[1] - np.outer(self.mean_L, self.mean_L)

    @cached_property
    def with_truth_CL(self) -> Floats:
        """Covariance of each concept with each latent."""
        tokens = self.truth_CT.shape[1]
        cross_LC = self.fit_TL.T @ self.truth_CT.T
        share_C = self.truth_CT.mean(axis=1)
        return cross_LC.T / tokens - np.outer(share_C, self.mean_L)

    def strongest(self, concept: int, count: int) -> Ints:
        """Return the latents of the largest correlation with a concept, the largest first."""
        spread_L = np.sqrt(np.maximum(np.diag(self.covariance_LL), 0))
        size_L = np.abs(self.with_truth_CL[concept]) / np.where(spread_L > 0, spread_L, np.inf)
        return np.argsort(-size_L, kind="stable")[:count]

    def explained(self, concept: int, chosen_K: Ints) -> float:
        """Return the share of a concept's variance that a linear function of some latents
        explains."""
        share = self.truth_CT[concept].mean()
        with_K = self.with_truth_CL[concept, chosen_K]
        within_KK = self.covariance_LL[np.ix_(chosen_K, chosen_K)].copy()
        variance_K = np.diag(within_KK).copy()
        within_KK[np.diag_indices_from(within_KK)] += _RIDGE * variance_K + (variance_K <= 0)
        return float(with_K @ np.linalg.solve(within_KK, with_K) / (share * (1 - share)))


@dataclass(frozen=True)
class Curve:
    """How the scores of a classifier separate tokens, from the largest score down.

    Attributes:
        score_P: different scores, descending.
        tp_P, fired_P: hits and tokens with at least this score.
    """

    score_P: Floats
    tp_P: Floats
    fired_P: Floats

    @classmethod
    def of(cls, score_T: Floats, truth_T: Floats) -> Curve:
        """Sort tokens by their score."""
        score_P, number_T = np.unique(-score_T, return_inverse=True)
        count_P = np.bincount(number_T, minlength=len(score_P))
        hits_P = np.bincount(number_T, weights=truth_T, minlength=len(score_P))
        tp_P, fired_P = (np.cumsum(each_P).astype(np.float64) for each_P in (hits_P, count_P))
        return cls(-score_P, tp_P, fired_P)

    @property
    def f1_P(self) -> Floats:
        return f1(self.tp_P, self.fired_P, self.tp_P[-1], 0)

    def threshold(self) -> float:
        """Return the score of the largest F1; of equal ones the highest."""
        return float(self.score_P[self.f1_P.argmax()])

    def f1_at(self, threshold: float) -> float:
        """Return the F1 of all tokens with at least this score."""
        above = int(np.searchsorted(-self.score_P, -threshold, side="right"))
        return float(self.f1_P[above - 1]) if above else 0.0

    def auroc(self) -> float:
        """Return the area under the ROC curve; nan where a class is empty."""
        positives = self.tp_P[-1]
        negatives = self.fired_P[-1] - positives
        if not positives or not negatives:
            return float("nan")
        return float(
            np.trapezoid(
                np.r_[0, self.tp_P] / positives, np.r_[0, self.fired_P - self.tp_P] / negatives
            )
        )


@dataclass(frozen=True)
class Linear:
    """A linear function of some features.

    Attributes:
        weight_K: of each feature.
        offset: added to it.
    """

    weight_K: Floats
    offset: float

    def __call__(self, x_TK: NDArray) -> Floats:
        return (x_TK @ self.weight_K.astype(x_TK.dtype)).astype(np.float64) + self.offset


def logistic(x_TK: Floats, truth_T: Floats, weight_T: Floats | None = None) -> Linear:
    """Fit a logistic regression by Newton's method, with half of `PENALTY` on squared weights.

    Features are standardized; one that never changes gets no weight.

    Args:
        truth_T: 0 or 1; both occur.
        weight_T: how often each row counts; once where None.
    """
    weight_T = np.ones(len(x_TK)) if weight_T is None else weight_T
    total = weight_T.sum()
    mean_K = weight_T @ x_TK / total
    spread_K = np.sqrt(np.maximum(weight_T @ (x_TK - mean_K) ** 2 / total, 0))
    z_TK = (x_TK - mean_K) / np.where(spread_K > 0, spread_K, np.inf)
    design_TJ = np.column_stack([z_TK, np.ones(len(z_TK))])
    ridge_J = np.r_[np.full(len(mean_K), PENALTY), 0.0]
    share = weight_T @ truth_T / total
    found_J = np.r_[np.zeros(len(mean_K)), np.log(share / (1 - share))]
    cost = _cost(found_J, design_TJ, truth_T, weight_T, ridge_J)
    for _ in range(_STEPS):
        chance_T = expit(design_TJ @ found_J)
        slope_J = design_TJ.T @ (weight_T * (chance_T - truth_T)) + ridge_J * found_J
        curved_T = weight_T * chance_T * (1 - chance_T)
        hessian_JJ = (design_TJ.T * curved_T) @ design_TJ + np.diag(ridge_J + 1e-9)
        step_J = np.linalg.solve(hessian_JJ, slope_J)
        size = 1.0
        while (new := _cost(found_J - size * step_J, design_TJ, truth_T, weight_T, ridge_J)) > cost:
            size /= 2
            if size < _CLOSE:
                return _of(found_J, mean_K, spread_K)
        found_J, gained, cost = found_J - size * step_J, cost - new, new
        if gained < _CLOSE * max(1.0, abs(cost)):
            break
    return _of(found_J, mean_K, spread_K)


def _cost(
    found_J: Floats, design_TJ: Floats, truth_T: Floats, weight_T: Floats, ridge_J: Floats
) -> float:
    logit_T = design_TJ @ found_J
    nll = weight_T @ (np.logaddexp(0, logit_T) - truth_T * logit_T)
    return float(nll + ridge_J @ found_J**2 / 2)


def _of(found_J: Floats, mean_K: Floats, spread_K: Floats) -> Linear:
    weight_K = np.where(spread_K > 0, found_J[:-1] / np.where(spread_K > 0, spread_K, 1), 0)
    return Linear(weight_K, float(found_J[-1] - weight_K @ mean_K))


@dataclass(frozen=True)
class Probe:
    """A fitted probe and what it is worth.

    Attributes:
        layer: number of the layer that it reads.
        chosen_K: its latents there.
        f1_fit, f1: with the threshold of the largest F1 on `concept_fit`, on both splits.
        auroc: on `concept_test`.
    """

    layer: int
    chosen_K: Ints
    f1_fit: float
    f1: float
    auroc: float


def probe(
    layers: Sequence[Features], concept: int, test_truth_T: Floats, count: int | None
) -> Probe:
    """Fit the probe of a concept that reads `count` latents, or all dimensions where None."""

    def chosen(layer: Features) -> Ints:
        every = np.arange(len(layer.mean_L))
        return every if count is None else layer.strongest(concept, count)

    picked = [chosen(layer) for layer in layers]
    worth = [layer.explained(concept, which) for layer, which in zip(layers, picked)]
    best = int(np.argmax(worth))
    layer, which = layers[best], picked[best]
    truth_T = layer.truth_CT[concept]
    fit_TK, test_TK = (_columns(table, which) for table in (layer.fit_TL, layer.test_TL))
    model = logistic(*_gathered(fit_TK, truth_T))
    on_fit = Curve.of(model(fit_TK), truth_T)
    on_test = Curve.of(model(test_TK), test_truth_T)
    threshold = on_fit.threshold()
    return Probe(best, which, on_fit.f1_at(threshold), on_test.f1_at(threshold), on_test.auroc())


def _columns(table_TL: csr_array | NDArray, which_K: Ints) -> NDArray:
    if isinstance(table_TL, np.ndarray):  # Of dense activations all are read.
        return table_TL
    return table_TL[:, which_K].toarray()


def _gathered(x_TK: NDArray, truth_T: Floats) -> tuple[Floats, Floats, Floats]:
    """Return fewer rows that say the same: those in which nothing is active are told once for each
    class; of more than `MOST` others of a class, evenly spaced ones stand for all."""
    silent_T = ~x_TK.any(axis=1)
    rows, weights = [], []
    for value in (False, True):
        at = np.flatnonzero(~silent_T & (truth_T == value))
        size = min(len(at), MOST)
        taken = at[np.arange(size) * len(at) // max(size, 1)]
        rows.append(taken)
        weights.append(np.full(size, len(at) / max(size, 1)))
        quiet = np.flatnonzero(silent_T & (truth_T == value))
        rows.append(quiet[:1])
        weights.append(np.full(min(1, len(quiet)), len(quiet), np.float64))
    row = np.concatenate(rows)
    return x_TK[row].astype(np.float64), truth_T[row], np.concatenate(weights)
