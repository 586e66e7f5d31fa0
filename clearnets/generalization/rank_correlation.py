"""How well metrics order runs by their generalization gap: Kendall's τ, conditional information.

The null permutes whole runs. Every permutation is applied to all metrics at once, and corrected
p-values are those of the largest statistic over metrics (Westfall and Young 1993), so that the
share of sets of metrics with any false alarm is bounded and correlated metrics cost little.

Shape suffixes: M metrics, R runs, P pairs of runs, H hyper-parameters, N draws, K cells of a
condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from clearnets.analysis.multiple_testing import permutation_p_values
from clearnets.analysis.statistics import NOTHING, Estimate, percentile_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NAN = float("nan")
# The score of a metric conditions on at most so many hyper-parameters (Jiang et al. 2020).
MAX_CONDITION = 2
# Rows of metrics under permutation at a time, so that tables of pairs fit into memory.
CHUNK = 4000


def kendall(metrics_MR: Floats, gap_R: Floats) -> Floats:
    """Return Kendall's τ-b (M,) of each metric with the gap over runs; NaN where one is constant.

    From -1 to 1. `scipy.stats.kendalltau` for many metrics at once. Source: Kendall 1945.
    """
    metrics_MP, gap_P = _orders(metrics_MR), _orders(gap_R)
    return _tau(metrics_MP @ gap_P, np.abs(metrics_MP).sum(axis=1), np.abs(gap_P).sum())


def kendall_draws(
    metrics_MR: Floats, gap_R: Floats, *, resamples: int, rng: np.random.Generator
) -> Floats:
    """Return the bootstrap distribution (N, M) of τ-b, runs drawn with replacement.

    A run that is drawn twice is tied with itself in both, and τ-b leaves such pairs out.
    """
    metrics_MP, gap_P = _orders(metrics_MR), _orders(gap_R)
    size = len(gap_R)
    i_P, j_P = np.triu_indices(size, k=1)
    counts_NR = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)
    weights_NP = counts_NR[:, i_P] * counts_NR[:, j_P]
    return _tau(
        weights_NP @ (metrics_MP * gap_P).T,
        weights_NP @ np.abs(metrics_MP).T,
        (weights_NP @ np.abs(gap_P))[:, None],
    )


def _orders(values: Floats) -> Floats:
    """Return the sign of the difference of each pair of runs, which are the last dimension."""
    i_P, j_P = np.triu_indices(values.shape[-1], k=1)
    return np.sign(values[..., i_P] - values[..., j_P])


def conditional_information(metrics_MR: Floats, gap_R: Floats, settings_RH: Ints) -> Floats:
    """Return how much each metric tells of the order of gaps beyond any two hyper-parameters (M,).

    Of a pair of runs, V is the sign of the difference in the metric and G that in the gap. With U
    the values that both runs have of a set of hyper-parameters, the score, in per cent, is

        100 · min over sets of at most two hyper-parameters of I(V; G | U) / H(G | U)

    from 0 (nothing, or only what two hyper-parameters tell) to 100 (the exact order within all of
    them). Source: Jiang et al. 2020, "Fantastic generalization measures", and the score of
    the PGDL competition. Pairs are those of unlike runs and weigh alike, as in the paper; the
    competition's program also pairs each run with itself, weighs cells of U alike and takes sets of
    exactly two. A pair with equal gaps has no order and is left out; equal metrics are a third
    value of V. A set whose values determine the order of all pairs leaves nothing unknown and is
    skipped. Few pairs per cell bias the score upwards: compare it with its null.

    Args:
        settings_RH: hyper-parameters as codes; equal codes are equal values.
    """
    i_P, j_P = np.triu_indices(len(gap_R), k=1)
    ordered = gap_R[i_P] != gap_R[j_P]
    i_P, j_P = i_P[ordered], j_P[ordered]
    # From i to j the gap rises.
    falls = gap_R[i_P] > gap_R[j_P]
    i_P, j_P = np.where(falls, j_P, i_P), np.where(falls, i_P, j_P)
    more_MP = (metrics_MR[:, i_P] < metrics_MR[:, j_P]).astype(np.float32)
    less_MP = (metrics_MR[:, i_P] > metrics_MR[:, j_P]).astype(np.float32)
    lowest_M = np.full(len(metrics_MR), np.inf)
    for codes_R in _conditions(settings_RH):
        rises_PK, falls_PK = _cells(codes_R[i_P], codes_R[j_P])
        # By the sign of the metric, then by that of the gap; a pair seen backwards turns both.
        more = np.stack([more_MP @ rises_PK, less_MP @ falls_PK], dtype=np.float64)
        less = np.stack([less_MP @ rises_PK, more_MP @ falls_PK], dtype=np.float64)
        pairs = np.stack([rises_PK.sum(axis=0), falls_PK.sum(axis=0)], dtype=np.float64)[:, None]
        tables = np.stack([more, less, pairs - more - less])
        total = _bits(pairs.sum(axis=0))
        unknown = (total - _bits(pairs).sum(axis=0)).sum()
        if unknown <= 0:
            continue
        mutual_MK = (
            _bits(tables).sum(axis=(0, 1))
            - _bits(tables.sum(axis=1)).sum(axis=0)
            - _bits(pairs).sum(axis=0)
            + total
        )
        lowest_M = np.minimum(lowest_M, mutual_MK.sum(axis=1) / unknown)
    return np.where(np.isfinite(lowest_M), 100 * np.maximum(lowest_M, 0), NAN)


@dataclass(frozen=True)
class Ranking:
    """How well metrics order runs by their generalization gap; arrays over metrics.

    Attributes:
        tau: Kendall's τ-b of each metric with the gap, with a bootstrap interval over runs.
        tau_p_M, tau_adjusted_M: two-sided p-values, of one metric alone and corrected over all.
        score_M: the conditional information in per cent.
        score_p_M, score_adjusted_M: its one-sided p-values.
        tau_band, score_band: the quantile `confidence` of the null's largest over all metrics.
    """

    tau: list[Estimate]
    tau_p_M: Floats
    tau_adjusted_M: Floats
    score_M: Floats
    score_p_M: Floats
    score_adjusted_M: Floats
    tau_band: float
    score_band: float


def rank(
    metrics_MR: Floats,
    gap_R: Floats,
    settings_RH: Ints,
    *,
    permutations: int,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Ranking:
    """Rank metrics over runs, with the null that permutes whole runs.

    A permutation assigns the metrics of a run, all together, to the gap and settings of another. A
    metric that lacks a value in any run, or is the same in all, is not ranked: it is NaN and not
    among the metrics that p-values are corrected for.

    Args:
        metrics_MR, gap_R: of R runs that are exchangeable under the null: one per combination of
            hyper-parameters, its seeds averaged.
        settings_RH: codes of the hyper-parameters.

    Raises:
        ValueError: there are fewer than three runs.
    """
    if len(gap_R) < 3:
        raise ValueError(f"{len(gap_R)} runs cannot be ranked; it takes at least 3")
    tau_M = kendall(metrics_MR, gap_R)
    score_M = conditional_information(metrics_MR, gap_R, settings_RH)
    ranked_M = np.isfinite(metrics_MR).all(axis=1) & np.isfinite(tau_M)
    tau_M[~ranked_M] = score_M[~ranked_M] = NAN
    tau_NM, score_NM = np.zeros((2, permutations, len(metrics_MR)))
    orders_NR = np.stack([rng.permutation(len(gap_R)) for _ in range(permutations)])
    nulls = _null(metrics_MR[ranked_M], gap_R, settings_RH, orders_NR)
    tau_NM[:, ranked_M], score_NM[:, ranked_M] = nulls
    draws_NM = kendall_draws(metrics_MR, gap_R, resamples=resamples, rng=rng)
    return Ranking(
        [_tau_estimate(*of, confidence) for of in zip(tau_M, draws_NM.T)],
        *permutation_p_values(np.abs(tau_M), tau_NM),
        score_M,
        *permutation_p_values(score_M, score_NM),
        tau_band=float(np.quantile(tau_NM.max(axis=1), confidence)),
        score_band=float(np.quantile(score_NM.max(axis=1), confidence)),
    )


def _null(
    metrics_MR: Floats, gap_R: Floats, settings_RH: Ints, orders_NR: Ints
) -> tuple[Floats, Floats]:
    """Return |τ| and the score, (N, M) both, with the metrics of runs in other orders."""
    found: list[tuple[Floats, Floats]] = []
    size = max(1, CHUNK // max(1, len(metrics_MR)))
    for start in range(0, len(orders_NR), size):
        permuted = metrics_MR[:, orders_NR[start : start + size]].swapaxes(0, 1)
        flat = permuted.reshape(-1, len(gap_R))
        tau, score = kendall(flat, gap_R), conditional_information(flat, gap_R, settings_RH)
        found.append((np.abs(tau).reshape(permuted.shape[:2]), score.reshape(permuted.shape[:2])))
    tau_NM, score_NM = (np.concatenate(parts) for parts in zip(*found))
    return tau_NM, score_NM


def _tau_estimate(value: float, draws_N: Floats, confidence: float) -> Estimate:
    draws_N = draws_N[np.isfinite(draws_N)]
    if not np.isfinite(value) or not len(draws_N):
        return NOTHING
    return percentile_interval(value, draws_N, confidence)


def _tau(concordance: Floats, metric_pairs: Floats, gap_pairs: Floats) -> Floats:
    """Return τ-b from concordant minus discordant pairs and the numbers of untied pairs."""
    ordered = np.sqrt(metric_pairs * gap_pairs)
    return np.divide(concordance, ordered, out=np.full_like(ordered, NAN), where=ordered > 0)


def _conditions(settings_RH: Ints) -> Iterator[Ints]:
    """Yield for every set of at most two hyper-parameters a code (R,) of their values."""
    everything = range(settings_RH.shape[1])
    for size in range(MAX_CONDITION + 1):
        for chosen in combinations(everything, size):
            part = settings_RH[:, list(chosen)]
            yield np.unique(part, axis=0, return_inverse=True)[1].reshape(-1)


def _cells(from_P: Ints, to_P: Ints) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return which pairs lie in which cell of two unordered values, forwards and backwards.

    Two (P, K) matrices of weights. A pair of equal values lies half in its cell each way.
    """
    pairs = np.stack([np.minimum(from_P, to_P), np.maximum(from_P, to_P)], axis=1)
    cell_P = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    forward_P = np.where(from_P == to_P, 0.5, from_P < to_P)
    one_hot_PK = cell_P[:, None] == np.arange(cell_P.max(initial=-1) + 1)
    forward_PK = (one_hot_PK * forward_P[:, None]).astype(np.float32)
    return forward_PK, one_hot_PK.astype(np.float32) - forward_PK


def _bits(counts: Floats) -> Floats:
    return xlogy(counts, counts) / np.log(2)
