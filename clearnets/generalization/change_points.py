"""Does sparsity tell when, and how well, a network generalizes? The statistics, without torch.

*When*: a metric's change point over the checkpoints of a run against the test loss's, paired by
seed, and whether the two move at the same checkpoints. A test loss seldom goes from one level to
another in one way: it rises while a network memorises and falls when it understands, or falls and
rises again when it overfits. So it is divided where it turns, and the question is asked of one
stretch, its `leg`. A metric is looked at `around` the loss's change, with as much time before it as
after it: one that changes at any time, whatever the loss does, changes as often before as after,
and its lead is nothing on average. *How well*: over runs of unlike hyper-parameters that reach one
training loss, whether a metric orders them as their generalization gaps do.

Nulls keep what is not in question. Over runs, whole runs are permuted. Within a run the loss is
shifted in time around a circle, because checkpoints are autocorrelated and permuting them would
find almost anything significant. Every permutation is applied to all metrics at once, and
`adjusted` p-values are those of the largest statistic over metrics (Westfall and Young 1993), so
that the share of families with any false alarm is bounded and metrics that go together cost
little. Lead times have few seeds and no permutation; their p-values are of a t statistic, by Holm
1979.

Shape suffixes: T checkpoints, S seeds, M metrics, R runs, P pairs of runs, H hyper-parameters,
N draws, K cells of a condition.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import xlogy

from clearnets.analysis.statistics import NOTHING, Estimate, mean_draws, percentile_interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NAN = float("nan")
# Intervals over fewer training seeds than this are not given.
MIN_SEEDS = 5
MIN_EXPLAINED = 0.75
"""Share of a series' variance that its transition has to explain to count as one. The best single
jump explains three quarters of a straight slope, which has no levels: what explains less is no
better described by a change of level, as a curve that falls and rises again."""
# A level that is seen at a single checkpoint is none.
MIN_LEVEL = 2
MIN_CHECKPOINTS = 6
"""Fewer are not asked. Of five values of noise 9 % look like two levels, of six 6, of eight 2."""
NEAR = 0.1
"""Share of a leg's movement within which the loss is still where the leg begins or ends."""
# Draws of the null of leads; a metric is decided from about the thousandth part of them.
EVEN_DRAWS = 200_000
# The score of the measure conditions on at most so many hyper-parameters (Jiang et al. 2020).
MAX_CONDITION = 2
# Rows of metrics under permutation at a time, so that tables of pairs fit into memory.
CHUNK = 4000


@dataclass(frozen=True)
class Transition:
    """A change from one level to another.

    Attributes:
        onset, middle, end: in the units of the times; a jump lies between neighbouring checkpoints.
        before, after: the two levels, in the units of the values.
        explained: share of the values' variance that the change explains, 0 to 1. A straight slope
            over the whole run reaches high values too; a low one means that there is no change of
            this kind.
        straight: share that a straight line over the whole run explains, 0 to 1.
    """

    onset: float
    middle: float
    end: float
    before: float
    after: float
    explained: float
    straight: float

    @property
    def is_one(self) -> bool:
        """Whether there are two levels: the change explains at least `MIN_EXPLAINED`, and leaves at
        most half of what a straight line leaves."""
        left, left_by_line = 1 - self.explained, 1 - self.straight
        return self.explained >= MIN_EXPLAINED and 2 * left <= left_by_line


NO_TRANSITION = Transition(NAN, NAN, NAN, NAN, NAN, NAN, NAN)


def leg(values_T: ArrayLike, *, rising: bool) -> slice:
    """The checkpoints of the largest movement in one direction, between two turning points.

    Of all pairs of an earlier and a later checkpoint, the one whose value rises (or falls) most: as
    the largest drawdown of a price. Neighbours that stay within `NEAR` of that movement of either
    end belong to it, so that a level before or after is not cut where noise has its extreme.

    Args:
        values_T: missing ones (NaN) are passed over.

    Returns:
        A slice of the checkpoints; empty where nothing moves in this direction.
    """
    values_T = np.asarray(values_T, np.float64) * (1 if rising else -1)
    there = np.flatnonzero(np.isfinite(values_T))
    values_N = values_T[there]
    if not len(there):
        return slice(0, 0)
    movement_N = values_N - np.minimum.accumulate(values_N)
    last = int(np.argmax(movement_N))
    first = int(np.argmin(values_N[: last + 1]))
    movement = movement_N[last]
    if movement <= 0:
        return slice(0, 0)
    far_N = np.abs(values_N - values_N[first]) > NEAR * movement
    before = np.flatnonzero(far_N[:first])
    far_N = np.abs(values_N - values_N[last]) > NEAR * movement
    after = np.flatnonzero(far_N[last:])
    start = before[-1] + 1 if len(before) else 0
    end = last + after[0] - 1 if len(after) else len(there) - 1
    return slice(int(there[start]), int(there[end]) + 1)


def of_leg(times_T: ArrayLike, values_T: ArrayLike, *, rising: bool) -> Transition:
    """The transition of a test loss in its leg; none in a leg of fewer than `MIN_CHECKPOINTS`."""
    part = leg(values_T, rising=rising)
    return _asked(np.asarray(times_T, np.float64)[part], np.asarray(values_T, np.float64)[part])


def around(times_T: ArrayLike, middle: float) -> slice:
    """The checkpoints of a run that lie as far before a time as others lie after it, at most.

    Of a metric of stationary increments, or one that changes at a time drawn evenly from the run,
    the change point in this window is distributed symmetrically about its middle, so that a lead
    of nothing is what an unrelated metric has; the whole run would have most of it on one side.
    What changes outside the window is not seen. Empty where the time is missing (NaN).
    """
    times_T = np.asarray(times_T, np.float64)
    reach = min(middle - times_T[0], times_T[-1] - middle)
    inside = np.flatnonzero(np.abs(times_T - middle) <= reach * (1 + 1e-9))
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def near_change(times_T: ArrayLike, values_T: ArrayLike, loss: Transition) -> Transition:
    """The transition of a metric around that of the test loss; none among too few checkpoints."""
    times_T, values_T = np.asarray(times_T, np.float64), np.asarray(values_T, np.float64)
    part = around(times_T, loss.middle)
    return _asked(times_T[part], values_T[part])


def _asked(times_T: Floats, values_T: Floats) -> Transition:
    enough = np.isfinite(values_T).sum() >= MIN_CHECKPOINTS
    return transition(times_T, values_T) if enough else NO_TRANSITION


def transition(times_T: ArrayLike, values_T: ArrayLike) -> Transition:
    """The change of level, sudden or gradual, that fits a series best.

    Least squares, exactly, over all functions that are constant up to one checkpoint, then go in a
    straight line to another level that they reach at a later checkpoint and keep. Each level holds
    at least two checkpoints. The change point is the middle. Of equally good fits the earliest.

    Args:
        times_T: increasing; on the scale on which time is to be measured.
        values_T: missing ones (NaN) are left out. With fewer than four, or where all are equal,
            there is no transition and every field is NaN.
    """
    times_T, values_T = np.asarray(times_T, np.float64), np.asarray(values_T, np.float64)
    there = np.isfinite(values_T)
    times_T, values_T = times_T[there], values_T[there]
    size = len(times_T)
    if size < 2 * MIN_LEVEL or np.ptp(values_T) == 0:
        return NO_TRANSITION
    first, last = np.triu_indices(size, k=1)
    inside = (first >= MIN_LEVEL - 1) & (last <= size - MIN_LEVEL)
    onset, end = times_T[first[inside]], times_T[last[inside]]
    ramps = np.clip((times_T - onset[:, None]) / (end - onset)[:, None], 0, 1)
    ramps_centred = ramps - ramps.mean(axis=1, keepdims=True)
    values_centred = values_T - values_T.mean()
    spread = np.square(ramps_centred).sum(axis=1)
    step = ramps_centred @ values_centred / spread
    gain = step**2 * spread
    best = int(np.argmax(gain > gain.max() * (1 - 1e-12)))
    before = values_T.mean() - step[best] * ramps[best].mean()
    return Transition(
        onset=float(onset[best]),
        middle=float((onset[best] + end[best]) / 2),
        end=float(end[best]),
        before=float(before),
        after=float(before + step[best]),
        explained=float(gain[best] / np.square(values_centred).sum()),
        straight=float(np.corrcoef(times_T, values_T)[0, 1] ** 2),
    )


def over_seeds(
    values_S: ArrayLike, *, resamples: int, confidence: float, rng: np.random.Generator
) -> Estimate:
    """The mean over training seeds with its bootstrap interval; no interval below `MIN_SEEDS`.

    The percentile interval of few values is too narrow: it is taken at the larger level that makes
    it as wide as a t interval for normal values (Hesterberg 2015, the expanded percentile
    interval). Seeds without a value (NaN) are left out.
    """
    values_S = np.asarray(values_S, np.float64)
    values_S = values_S[np.isfinite(values_S)]
    size = len(values_S)
    if not size:
        return NOTHING
    if size < MIN_SEEDS:
        return Estimate(float(values_S.mean()), NAN, NAN)
    wide = stats.t.ppf((1 + confidence) / 2, size - 1) * np.sqrt(size / (size - 1))
    expanded = 1 - 2 * float(stats.norm.sf(wide))
    draws_N = mean_draws(values_S, np.zeros(size, np.int64), resamples=resamples, rng=rng)
    return percentile_interval(float(values_S.mean()), draws_N, expanded)


def no_lead(leads_S: ArrayLike, *, resolution: float) -> float:
    """Two-sided p-value of a mean lead of 0 over seeds, above 0; NaN below `MIN_SEEDS`.

    Of the t statistic, the larger of two: Student's, of normal leads; and that of leads drawn
    evenly from an interval about 0, as those of a metric are that changes at any time in its
    window. Of few seeds the second has far heavier tails (Hotelling 1961).

    Equal leads do not make it certain: each is the difference of two times that are known to a
    checkpoint only. Their variance is taken to be no less than what rounding alone makes of it,
    twice a twelfth of the squared distance of checkpoints (Sheppard 1898).

    Args:
        resolution: the distance of neighbouring checkpoints, above 0, in the units of the leads.
    """
    leads_S = np.asarray(leads_S, np.float64)
    leads_S = leads_S[np.isfinite(leads_S)]
    size = len(leads_S)
    if size < MIN_SEEDS:
        return NAN
    variance = max(float(np.var(leads_S, ddof=1)), resolution**2 / 6)
    t = abs(float(leads_S.mean())) / np.sqrt(variance / size)
    even_N = _even_leads(size)
    at_least = len(even_N) - np.searchsorted(even_N, t)
    return max(float(2 * stats.t.sf(t, size - 1)), (1 + at_least) / (1 + len(even_N)))


@cache
def _even_leads(size: int) -> Floats:
    """|t| (N,), increasing, of so many values drawn evenly from -1 to 1."""
    even_NS = np.random.default_rng(0).uniform(-1, 1, (EVEN_DRAWS, size))
    t_N = even_NS.mean(axis=1) / (even_NS.std(axis=1, ddof=1) / np.sqrt(size))
    return np.sort(np.abs(t_N))


def holm(p_M: ArrayLike) -> Floats:
    """p-values (M,) that hold for the whole family (Holm 1979); NaN is no member."""
    p_M = np.asarray(p_M, np.float64)
    adjusted_M = np.full(len(p_M), NAN)
    order = [m for m in np.argsort(p_M, kind="stable") if np.isfinite(p_M[m])]
    largest = 0.0
    for place, m in enumerate(order):
        largest = max(largest, (len(order) - place) * p_M[m])
        adjusted_M[m] = min(1.0, largest)
    return adjusted_M


def verdict(lead: Estimate, adjusted: float, *, tolerance: float, level: float = 0.05) -> str:
    """`before`, `with`, `after` or `undecided`: when a metric moves, against the test loss.

    Args:
        lead: time of the loss's change minus that of the metric's; positive is before.
        adjusted: p-value of no lead, corrected for the number of metrics.
        tolerance: the distance of neighbouring checkpoints there. Where the whole interval lies
            within it the two move together; what is shorter cannot be seen.
    """
    if not np.isfinite([lead.low, lead.high]).all():
        return "undecided"
    if lead.within(0.0, tolerance):
        return "with"
    if adjusted <= level and not lead.contains(0.0):
        return "before" if lead.value > 0 else "after"
    return "undecided"


@dataclass(frozen=True)
class Together:
    """Whether metrics move at the checkpoints at which the loss moves; arrays over metrics.

    Attributes:
        correlation_M: mean over seeds of the correlation of increments, -1 to 1.
        p_M: two-sided, of one metric alone.
        adjusted_M: of the largest over all metrics.
    """

    correlation_M: Floats
    p_M: Floats
    adjusted_M: Floats


def together(
    losses: list[Floats], metrics: list[Floats], *, draws: int, rng: np.random.Generator
) -> Together:
    """Correlation of the increments of metrics with those of the loss, over the runs of one task.

    The null shifts each run's loss increments around a circle by a random distance, one for all
    metrics, independently for each run. That keeps the autocorrelation of both series and supposes
    that their increments are stationary.

    Args:
        losses: of each seed (T,).
        metrics: of each seed (M, T), rows in one order. A missing value (NaN) counts as no
            movement; a metric that does not move at all has no correlation.
    """
    sums_ML = []
    for loss_T, metrics_MT in zip(losses, metrics):
        loss_D, metrics_MD = _increments(loss_T[None])[0], _increments(metrics_MT)
        size = len(loss_D)
        shifted_LD = np.stack([np.roll(loss_D, shift) for shift in range(size)])
        sums_ML.append(metrics_MD @ shifted_LD.T)
    moves_M = np.any([np.abs(s).max(axis=1) > 0 for s in sums_ML], axis=0)
    correlation_M = np.mean([s[:, 0] for s in sums_ML], axis=0)
    null_NM = np.zeros((draws, len(correlation_M)))
    for s in sums_ML:
        null_NM += s[:, rng.integers(s.shape[1], size=draws)].T / len(sums_ML)
    correlation_M[~moves_M] = NAN
    return Together(correlation_M, *_p_values(np.abs(correlation_M), np.abs(null_NM)))


def kendall(metrics_MR: Floats, gap_R: Floats) -> Floats:
    """Kendall's τ-b (M,) of each metric with the gap over runs, -1 to 1; NaN where one is constant.

    `scipy.stats.kendalltau` for many metrics at once. Source: Kendall 1945.
    """
    i_P, j_P = np.triu_indices(len(gap_R), k=1)
    gap_P = np.sign(gap_R[i_P] - gap_R[j_P])
    metrics_MP = np.sign(metrics_MR[:, i_P] - metrics_MR[:, j_P])
    return _tau(metrics_MP @ gap_P, np.abs(metrics_MP).sum(axis=1), np.abs(gap_P).sum())


def kendall_draws(
    metrics_MR: Floats, gap_R: Floats, *, resamples: int, rng: np.random.Generator
) -> Floats:
    """Bootstrap distribution (N, M) of τ-b, runs drawn with replacement.

    A run that is drawn twice is tied with itself in both, and τ-b leaves such pairs out.
    """
    i_P, j_P = np.triu_indices(len(gap_R), k=1)
    gap_P = np.sign(gap_R[i_P] - gap_R[j_P])
    metrics_MP = np.sign(metrics_MR[:, i_P] - metrics_MR[:, j_P])
    size = len(gap_R)
    times_NR = rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)
    weights_NP = times_NR[:, i_P] * times_NR[:, j_P]
    return _tau(
        weights_NP @ (metrics_MP * gap_P).T,
        weights_NP @ np.abs(metrics_MP).T,
        (weights_NP @ np.abs(gap_P))[:, None],
    )


def conditional_information(metrics_MR: Floats, gap_R: Floats, settings_RH: Ints) -> Floats:
    """What a metric knows of the order of gaps beyond any two hyper-parameters, in per cent (M,).

    Of a pair of runs, V is the sign of the difference in the metric and G that in the gap. With U
    the values that both runs have of a set of hyper-parameters, the score is

        100 · min over sets of at most two hyper-parameters of I(V; G | U) / H(G | U)

    from 0 (knows nothing, or only what two hyper-parameters say) to 100 (the exact order within
    all of them). Source: Jiang et al. 2020, "Fantastic generalization measures", and the score of
    the PGDL competition. Pairs are those of unlike runs and weigh alike, as in the paper; the
    competition's program also pairs each run with itself, weighs cells of U alike and takes sets of
    exactly two. A pair with equal gaps has no order and is left out; equal metrics are a third
    value of V. A set whose values settle the order of all pairs has nothing left to know and is
    skipped. Few pairs per cell bias the score upwards: read it against its null.

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
        known_MK = (
            _bits(tables).sum(axis=(0, 1))
            - _bits(tables.sum(axis=1)).sum(axis=0)
            - _bits(pairs).sum(axis=0)
            + total
        )
        lowest_M = np.minimum(lowest_M, known_MK.sum(axis=1) / unknown)
    return np.where(np.isfinite(lowest_M), 100 * np.maximum(lowest_M, 0), NAN)


@dataclass(frozen=True)
class Ranking:
    """How metrics order runs, against how runs generalize; arrays over metrics.

    Attributes:
        tau: Kendall's τ-b of each metric with the gap: an interval over runs, by the bootstrap.
        tau_p_M, tau_adjusted_M: two-sided; of one metric alone, and of the largest |τ| of all.
        score_M: the conditional information in per cent.
        score_p_M, score_adjusted_M: the same for it; one-sided.
        tau_band, score_band: what a share `confidence` of permutations stays below in the one
            metric that comes out highest by chance.
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

    A permutation deals the runs' metrics, all of a run together, to the runs' gaps and settings. A
    metric that lacks a value in any run, or is the same in all, has no rank: NaN, and it is not
    counted among the metrics that p-values are corrected for.

    Args:
        metrics_MR, gap_R: of R runs that count as exchangeable where nothing is to be found: one
            per combination of hyper-parameters, its seeds averaged.
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
    kept_MR = metrics_MR[ranked_M]
    deals_NR = np.stack([rng.permutation(len(gap_R)) for _ in range(permutations)])
    tau_NM = np.zeros((permutations, len(metrics_MR)))
    score_NM = np.zeros_like(tau_NM)
    for part in _chunks(permutations, max(1, CHUNK // max(1, len(kept_MR)))):
        dealt = kept_MR[:, deals_NR[part]].swapaxes(0, 1)
        flat = dealt.reshape(-1, len(gap_R))
        tau_NM[part, ranked_M] = np.abs(kendall(flat, gap_R)).reshape(dealt.shape[:2])
        scores = conditional_information(flat, gap_R, settings_RH)
        score_NM[part, ranked_M] = scores.reshape(dealt.shape[:2])
    draws_NM = kendall_draws(metrics_MR, gap_R, resamples=resamples, rng=rng)
    tau_p = _p_values(np.abs(tau_M), tau_NM)
    score_p = _p_values(score_M, score_NM)
    return Ranking(
        [_tau_estimate(*of, confidence) for of in zip(tau_M, draws_NM.T)],
        *tau_p,
        score_M,
        *score_p,
        tau_band=float(np.quantile(tau_NM.max(axis=1), confidence)),
        score_band=float(np.quantile(score_NM.max(axis=1), confidence)),
    )


def _tau_estimate(value: float, draws_N: Floats, confidence: float) -> Estimate:
    draws_N = draws_N[np.isfinite(draws_N)]
    if not np.isfinite(value) or not len(draws_N):
        return NOTHING
    return percentile_interval(value, draws_N, confidence)


def _tau(concordance: Floats, metric_pairs: Floats, gap_pairs: Floats) -> Floats:
    """τ-b from concordant minus discordant pairs and the pairs that either side orders."""
    ordered = np.sqrt(metric_pairs * gap_pairs)
    return np.divide(concordance, ordered, out=np.full_like(ordered, NAN), where=ordered > 0)


def _p_values(found_M: Floats, null_NM: Floats) -> tuple[Floats, Floats]:
    """Shares of the null at or above each statistic, alone and of the largest over metrics.

    What was found counts as one draw, so that no p-value is 0 (Phipson and Smyth 2010).
    """
    largest_N = null_NM.max(axis=1, initial=0.0)
    draws = len(null_NM) + 1
    # Equal statistics may differ by rounding.
    floor_M = found_M - 1e-9
    alone_M = (1 + (null_NM >= floor_M).sum(axis=0)) / draws
    family_M = (1 + (largest_N[:, None] >= floor_M).sum(axis=0)) / draws
    missing_M = ~np.isfinite(found_M)
    return np.where(missing_M, NAN, alone_M), np.where(missing_M, NAN, family_M)


def _increments(values_MT: Floats) -> Floats:
    """Changes between checkpoints, centred, of length 1 per row; 0 where nothing is known."""
    steps_MD = np.diff(values_MT, axis=1)
    there_MD = np.isfinite(steps_MD)
    mean_M = np.sum(steps_MD, axis=1, where=there_MD) / np.maximum(1, there_MD.sum(axis=1))
    centred_MD = np.where(there_MD, steps_MD - mean_M[:, None], 0.0)
    # What rounding leaves of equal steps is no movement.
    scale_M = np.abs(np.where(there_MD, steps_MD, 0.0)).max(axis=1, initial=0.0)
    length_M = np.linalg.norm(centred_MD, axis=1)
    length_M = np.where(length_M > 1e-12 * scale_M, length_M, np.inf)
    return centred_MD / length_M[:, None]


def _conditions(settings_RH: Ints) -> Iterator[Ints]:
    """For every set of at most two hyper-parameters a code (R,) of their values."""
    everything = range(settings_RH.shape[1])
    for size in range(MAX_CONDITION + 1):
        for chosen in combinations(everything, size):
            part = settings_RH[:, list(chosen)]
            yield np.unique(part, axis=0, return_inverse=True)[1].reshape(-1)


def _cells(from_P: Ints, to_P: Ints) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Which pairs lie in which cell of two unordered values, as they are and seen backwards.

    Two (P, K) matrices of weights. A pair whose values are equal lies in its cell both ways.
    """
    pairs = np.stack([np.minimum(from_P, to_P), np.maximum(from_P, to_P)], axis=1)
    cell_P = np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1)
    forward_P = np.where(from_P == to_P, 0.5, from_P < to_P)
    one_hot_PK = cell_P[:, None] == np.arange(cell_P.max(initial=-1) + 1)
    forward_PK = (one_hot_PK * forward_P[:, None]).astype(np.float32)
    return forward_PK, one_hot_PK.astype(np.float32) - forward_PK


def _bits(counts: Floats) -> Floats:
    return xlogy(counts, counts) / np.log(2)


def _chunks(total: int, size: int) -> Iterator[slice]:
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))
