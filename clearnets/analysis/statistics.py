"""Means, contrasts and their bootstrap intervals over latents. Pure numpy, seeded, vectorised.

Shape suffixes: N latents of one family, A and B latents of the two families of a contrast,
P matched pairs, R bootstrap resamples.

What an interval says: it is a percentile bootstrap over *latents*, so it describes the trained
models at hand only. Latents of one model are not a sample of models; a claim about architectures
needs several training seeds.

Three ways to compare two families:
- unmatched: difference of the means over latents, resampled within (training seed, layer).
- matched by firing rate: latents are put into bins of a quarter decade of their rate on `explain`.
  Only bins that hold at least `min_stratum` latents of both families count; the differences
  within bins are averaged with weights A*B/(A+B) (Mantel and Haenszel's), and latents are
  resampled within (family, bin).
- matched by activity: 1:1 nearest matching without replacement on the logit of the share of
  windows a latent is active in, closest pairs first, within a caliper of 0.2 standard deviations
  (Austin 2011). The pairs are resampled, which is the bootstrap that stays valid for matching
  without replacement (Austin and Small 2014).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Strata of firing rate per factor of ten. In simulations with scores that rise by 0.08 per decade
# and families 0.6 decades apart, half decades left a bias of 0.004 inside the bins, quarters 0.001.
STRATA_PER_DECADE = 4
# Values drawn at a time: what fits a processor's cache is three times as fast.
CHUNK = 60_000
# Level of the interval whose lying within the margin is two one-sided tests at 5 % each.
EQUIVALENCE = 0.9
# Largest distance of a matched pair, in pooled standard deviations of the logit.
CALIPER = 0.2


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; all NaN where there is nothing to estimate from.

    `tested` is its 90 % interval, of whatever level `low` and `high` are: that of `equivalent`.
    """

    value: float
    low: float
    high: float
    tested: tuple[float, float] = (float("nan"), float("nan"))

    def columns(self, name: str, prefix: str = "") -> dict[str, float]:
        """Return the number as column `name`, its interval as `low` and `high` after `prefix`."""
        return {name: self.value, f"{prefix}low": self.low, f"{prefix}high": self.high}

    def contains(self, point: float) -> bool:
        """Return whether the interval holds `point`."""
        return self.low <= point <= self.high

    def within(self, point: float, margin: float) -> bool:
        """Return whether the whole interval lies within `margin` of `point`.

        With a 95 % interval that is the test of equivalence of two one-sided tests at 2.5 % each
        (Schuirmann 1987).
        """
        return point - margin <= self.low and self.high <= point + margin

    def equivalent(self, margin: float) -> bool:
        """Return whether a difference is shown to be smaller than `margin`: the 90 % interval lies
        within it, which is two one-sided tests at 5 % each (Schuirmann 1987)."""
        return -margin < self.tested[0] and self.tested[1] < margin


NOTHING = Estimate(float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True)
class Contrast:
    """Family a minus family b, on `used_a` and `used_b` of their latents.

    `unmatched_a` and `unmatched_b` are the shares of latents that found no counterpart.
    """

    difference: Estimate
    used_a: int
    used_b: int
    unmatched_a: float
    unmatched_b: float


@dataclass(frozen=True)
class Stratum:
    """One bin of firing rate, [low, high), with the latents and mean scores of both families."""

    low: float
    high: float
    n_a: int
    n_b: int
    mean_a: float
    mean_b: float
    used: bool


def balanced_accuracy(tp: ArrayLike, fp: ArrayLike, tn: ArrayLike, fn: ArrayLike) -> Floats:
    """Return (tp/(tp+fn) + tn/(tn+fp)) / 2, elementwise; NaN where one class is empty."""
    tp, fp, tn, fn = (np.asarray(x, dtype=np.float64) for x in (tp, fp, tn, fn))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (tp / (tp + fn) + tn / (tn + fp)) / 2


def rates(tp: ArrayLike, fp: ArrayLike, tn: ArrayLike, fn: ArrayLike) -> dict[str, Floats]:
    """Return precision tp/(tp+fp) and recall tp/(tp+fn), elementwise; NaN where nothing was called
    active or nothing is."""
    tp, fp, fn = (np.asarray(x, dtype=np.float64) for x in (tp, fp, fn))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"precision": tp / (tp + fp), "recall": tp / (tp + fn)}


def paired(
    rows_N: Floats, columns_N: Floats, strata_N: Ints, inside_N: NDArray[np.bool_] | None = None
) -> Floats:
    """Return values (N,) whose mean is that of a score over all ordered pairs of latents of a
    stratum, and whose spread over latents is that mean's uncertainty.

    Each latent takes part in its pairs twice, as the judged one and with its explanation, so its
    mean score as the one alone, `rows_N`, or as the other, `columns_N`, varies too little. To first
    order (Hoeffding's projection of a U-statistic) the mean over pairs moves with the sum of both.

    With `inside_N` the mean is that over the judged latents inside, and there are no values where
    none is; all others still give explanations, and a giver's mean over all stands for that over
    those inside. To first order that mean is the ratio of two sums over all latents.
    """
    inside_N = np.ones(len(rows_N), bool) if inside_N is None else inside_N
    if not inside_N.any():
        return np.zeros(0)
    mean, share = rows_N[inside_N].mean(), inside_N.mean()
    values_N = mean + np.where(inside_N, rows_N - mean, 0) / share
    for stratum in np.unique(strata_N):
        own = strata_N == stratum
        given = columns_N[own] - columns_N[own].mean()
        values_N[own] += given * inside_N[own].mean() / share
    return values_N


def sampled_pairs(
    values_P: Floats, judged_P: Ints, giver_P: Ints, strata_P: Ints
) -> tuple[Floats, Ints]:
    """Return values (N,) and strata (N,) as `paired` does, from scores of some of the pairs, of the
    latents that are in any of them.

    Pairs that share a latent depend on each other, whichever part it has in them. The spread of the
    values is that of the variance which is robust to it (Fafchamps and Gubert 2007; Aronow, Samii
    and Assenova 2015), at least that of independent pairs. Latents with several givers count once.

    Args:
        judged_P, giver_P: numbers of the latents, each in one stratum only.
        strata_P: their stratum.
    """
    _, stratum_P = np.unique(strata_P, return_inverse=True)
    latents_N, place_2P = np.unique(np.stack([judged_P, giver_P]), return_inverse=True)
    place_2P, size = place_2P.reshape(2, -1), len(latents_N)
    stratum_N = np.empty(size, np.int64)
    stratum_N[place_2P] = stratum_P
    weight_P = 1 / np.bincount(judged_P)[judged_P]

    def by_latent(value_P: Floats) -> Floats:
        return np.bincount(place_2P.reshape(-1), np.tile(value_P, 2), size).astype(np.float64)

    # Residuals are about a mean that the same pairs moved, each latent by its share of them; that
    # much is missing from the squares. Where it is half and more, there is nothing to correct by.
    total_S = np.bincount(stratum_P, weight_P)
    missing_S = np.bincount(stratum_N, by_latent(weight_P) ** 2) / total_S**2
    mean_S = np.bincount(stratum_P, weight_P * values_P) / total_S
    stretch_S = 1 / np.sqrt(1 - np.minimum(missing_S, 0.5))
    off_P = (weight_P * (values_P - mean_S[stratum_P])) * stretch_S[stratum_P]
    moved_N = by_latent(off_P)
    # The sum of squares has a pair of latents twice, once with each.
    lower_P, upper_P = np.sort(place_2P, axis=0)
    once = float((np.bincount(lower_P * size + upper_P, off_P) ** 2).sum())
    twice = float((moved_N**2).sum())
    scale = np.sqrt(max(twice - once, once) / twice) if twice else 0.0
    mean = float(np.average(values_P, weights=weight_P))
    return mean + scale * moved_N * size / weight_P.sum(), stratum_N


def mean_draws(
    values_N: Floats, strata_N: Ints, *, resamples: int, rng: np.random.Generator
) -> Floats:
    """Return the bootstrap distribution (R,) of the mean, resampled within each stratum.

    Each stratum keeps its size, so the mean weighs every latent alike in every resample.
    """
    assert len(values_N) == len(strata_N) > 0
    sums_R = np.zeros(resamples)
    for stratum in np.unique(strata_N):
        part = values_N[strata_N == stratum]
        size = len(part)
        index = np.uint16 if size <= 1 << 16 else np.uint32
        step = max(1, CHUNK // size)
        for first in range(0, resamples, step):
            chunk = slice(first, min(first + step, resamples))
            shape = (chunk.stop - first, size)
            sums_R[chunk] += part.take(rng.integers(size, size=shape, dtype=index)).sum(axis=1)
    return sums_R / len(values_N)


def percentile_interval(value: float, draws_R: Floats, confidence: float) -> Estimate:
    """Return `value` with the central `confidence` share of its bootstrap distribution."""
    tail = (1 - confidence) / 2
    inner = (1 - EQUIVALENCE) / 2
    low, high, *tested = np.quantile(draws_R, [tail, 1 - tail, inner, 1 - inner]).tolist()
    return Estimate(float(value), low, high, (tested[0], tested[1]))


def mean_estimate(
    values_N: Floats,
    strata_N: Ints,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Estimate:
    """Return the mean with its stratified bootstrap interval; `NOTHING` for no values."""
    if not len(values_N):
        return NOTHING
    draws_R = mean_draws(values_N, strata_N, resamples=resamples, rng=rng)
    return percentile_interval(values_N.mean(), draws_R, confidence)


def unmatched(
    values_A: Floats,
    strata_A: Ints,
    values_B: Floats,
    strata_B: Ints,
    *,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Contrast:
    """Return the difference of the two means, each resampled within its strata."""
    a, b = len(values_A), len(values_B)
    if not a or not b:
        return Contrast(NOTHING, a, b, 0.0, 0.0)
    draws_R = mean_draws(values_A, strata_A, resamples=resamples, rng=rng)
    draws_R -= mean_draws(values_B, strata_B, resamples=resamples, rng=rng)
    difference = percentile_interval(values_A.mean() - values_B.mean(), draws_R, confidence)
    return Contrast(difference, a, b, 0.0, 0.0)


def rate_bin(rate_N: Floats, per_decade: int) -> Ints:
    """Return the bin of each firing rate, equally wide on a log scale. Rates are > 0."""
    assert (rate_N > 0).all()
    return np.floor(np.log10(rate_N) * per_decade).astype(np.int64)


def bin_edges(index: int, per_decade: int) -> tuple[float, float]:
    """Return the lower (inclusive) and upper firing rate of a bin."""
    return 10 ** (index / per_decade), 10 ** ((index + 1) / per_decade)


def rate_matched(
    values_A: Floats,
    rate_A: Floats,
    values_B: Floats,
    rate_B: Floats,
    *,
    min_stratum: int,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> tuple[Contrast, list[Stratum]]:
    """Return the difference within bins of firing rate, and the bins. See the module's text."""
    bin_A, bin_B = (rate_bin(rate, STRATA_PER_DECADE) for rate in (rate_A, rate_B))
    strata: list[Stratum] = []
    total = value = 0.0
    draws_R = np.zeros(resamples)
    for index in np.union1d(bin_A, bin_B):
        in_a, in_b = values_A[bin_A == index], values_B[bin_B == index]
        a, b = len(in_a), len(in_b)
        used = min(a, b) >= min_stratum
        means = [float(x.mean()) if len(x) else float("nan") for x in (in_a, in_b)]
        edges = bin_edges(int(index), STRATA_PER_DECADE)
        strata.append(Stratum(*edges, a, b, means[0], means[1], used))
        if not used:
            continue
        weight = a * b / (a + b)
        total += weight
        value += weight * (means[0] - means[1])
        one_a, one_b = np.zeros(a, np.int64), np.zeros(b, np.int64)
        draws_R += weight * mean_draws(in_a, one_a, resamples=resamples, rng=rng)
        draws_R -= weight * mean_draws(in_b, one_b, resamples=resamples, rng=rng)
    used_a = sum(s.n_a for s in strata if s.used)
    used_b = sum(s.n_b for s in strata if s.used)
    shares = _left_out(used_a, len(values_A)), _left_out(used_b, len(values_B))
    if not total:
        return Contrast(NOTHING, 0, 0, *shares), strata
    difference = percentile_interval(value / total, draws_R / total, confidence)
    return Contrast(difference, used_a, used_b, *shares), strata


def nearest_pairs(
    x_A: Floats, x_B: Floats, *, caliper: float, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Return pairs (P,), (P,) of indices into `x_A` and `x_B`, closest first, none used twice.

    Only pairs at most `caliper` apart. Ties are broken at random, so that the order of the latents
    (by seed and layer) has no say.
    """
    x_M, first_B = np.concatenate([x_A, x_B]), len(x_A)
    shuffled_M = rng.permutation(len(x_M))
    order = shuffled_M[np.argsort(x_M[shuffled_M], kind="stable")].tolist()
    # The closest pair of an a and a b that are both free always lies side by side among the free.
    before = dict(zip(order[1:], order))
    after = dict(pairwise(order))
    heap: list[tuple[float, int, int]] = []

    def consider(left: int, right: int) -> None:
        gap = float(x_M[right] - x_M[left])
        if (left < first_B) != (right < first_B) and gap <= caliper:
            heapq.heappush(heap, (gap, left, right))

    for left, right in pairwise(order):
        consider(left, right)
    used: set[int] = set()
    pairs: list[tuple[int, int]] = []
    while heap:
        _, left, right = heapq.heappop(heap)
        if left in used or right in used:
            continue
        used |= {left, right}
        pairs.append((min(left, right), max(left, right) - first_B))
        outer_left, outer_right = before.get(left), after.get(right)
        if outer_left is not None and outer_right is not None:
            after[outer_left], before[outer_right] = outer_right, outer_left
            consider(outer_left, outer_right)
        elif outer_left is not None:
            del after[outer_left]
        elif outer_right is not None:
            del before[outer_right]
    chosen = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1]


def activity_matched(
    values_A: Floats,
    share_A: Floats,
    values_B: Floats,
    share_B: Floats,
    *,
    min_pairs: int,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Contrast:
    """Return the mean difference over pairs of latents that are active in as many windows.

    Args:
        share_A, share_B: shares of windows that each latent is active in, within (0, 1).
        min_pairs: with fewer pairs nothing is estimated.
    """
    logit_A, logit_B = (np.log(share / (1 - share)) for share in (share_A, share_B))
    a, b = len(values_A), len(values_B)
    if min(a, b) < min_pairs:
        return Contrast(NOTHING, 0, 0, _left_out(0, a), _left_out(0, b))
    spread = float(np.sqrt((logit_A.var() + logit_B.var()) / 2))
    i, j = nearest_pairs(logit_A, logit_B, caliper=CALIPER * spread, rng=rng)
    pairs = len(i)
    shares = _left_out(pairs, a), _left_out(pairs, b)
    if pairs < min_pairs:
        return Contrast(NOTHING, pairs, pairs, *shares)
    estimate = mean_estimate(
        values_A[i] - values_B[j],
        np.zeros(pairs, np.int64),
        resamples=resamples,
        confidence=confidence,
        rng=rng,
    )
    return Contrast(estimate, pairs, pairs, *shares)


def strata_ids(*columns: Sequence[int] | NDArray[np.int64]) -> Ints:
    """Return one integer per latent that numbers the distinct rows of `columns`."""
    rows = np.stack([np.asarray(column, dtype=np.int64) for column in columns], axis=1)
    return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)


def _left_out(used: int, total: int) -> float:
    return 1 - used / total if total else 0.0
