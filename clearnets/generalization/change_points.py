"""Change points of training curves, and whether a metric's comes before the test loss's. Numpy.

A test loss seldom changes level once and in one direction: it rises while a network memorises and
falls when it generalizes, or falls and rises again when it overfits. So it is cut at its turning
points, and only one segment of it is analysed. A metric is analysed in a window around the loss's
change point, with as much time before it as after it: one that changes at any time, whatever the
loss does, changes as often before as after, and its mean lead is 0.

Shape suffixes: T checkpoints, S seeds, M metrics, N draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from clearnets.analysis.multiple_testing import permutation_p_values
from clearnets.analysis.statistics import NOTHING, Estimate, mean_draws, percentile_interval

Floats = NDArray[np.float64]

NAN = float("nan")
# Intervals over fewer training seeds than this are not given.
MIN_SEEDS = 5
MIN_EXPLAINED = 0.75
"""Smallest share of a series' variance that a change of level explains. The best single jump
explains three quarters of a straight slope, which has no levels; where less is explained, as of a
curve that falls and rises again, a change of level is no better description."""
# A level holds at least this many checkpoints.
MIN_LEVEL = 2
MIN_CHECKPOINTS = 6
"""Shorter series are not analysed. Of five values of noise 9 % look like two levels, of six 6, of
eight 2."""
NEAR = 0.1
"""Share of a segment's movement within which the loss counts as still at its start or end."""
# Draws of the null distribution of leads; p-values down to about a thousandth are needed.
NULL_DRAWS = 200_000


@dataclass(frozen=True)
class Transition:
    """A change from one level to another.

    Attributes:
        onset, middle, end: in the units of the times; a jump lies between neighbouring checkpoints.
        before, after: the two levels, in the units of the values.
        explained: share of the values' variance that the transition explains, 0 to 1.
        straight: share that a straight line over the whole series explains, 0 to 1.
    """

    onset: float
    middle: float
    end: float
    before: float
    after: float
    explained: float
    straight: float

    @property
    def changes_level(self) -> bool:
        """Whether there are two levels.

        The transition explains at least `MIN_EXPLAINED`, and leaves at most half of the variance
        that a straight line leaves.
        """
        left, left_by_line = 1 - self.explained, 1 - self.straight
        return self.explained >= MIN_EXPLAINED and 2 * left <= left_by_line


NO_TRANSITION = Transition(NAN, NAN, NAN, NAN, NAN, NAN, NAN)


def largest_segment(values_T: ArrayLike, *, rising: bool) -> slice:
    """Return the checkpoints of the largest movement in one direction, between two turning points.

    Of all pairs of an earlier and a later checkpoint it is the one whose value rises (or falls)
    most, as the largest drawdown of a price. Neighbours that stay within the share `NEAR` of that
    movement of either end belong to it, so that noise does not cut off a level.

    Args:
        values_T: missing ones (NaN) are skipped.

    Returns:
        A slice of the checkpoints; empty where nothing moves in this direction.
    """
    values_T = np.asarray(values_T, np.float64) * (1 if rising else -1)
    known = np.flatnonzero(np.isfinite(values_T))
    values_N = values_T[known]
    if not len(known):
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
    end = last + after[0] - 1 if len(after) else len(known) - 1
    return slice(int(known[start]), int(known[end]) + 1)


def segment_transition(times_T: ArrayLike, values_T: ArrayLike, *, rising: bool) -> Transition:
    """Return the transition of a test loss in its largest segment; see `MIN_CHECKPOINTS`."""
    return _part_transition(times_T, values_T, largest_segment(values_T, rising=rising))


def window_around(times_T: ArrayLike, middle: float) -> slice:
    """Return the checkpoints in the largest window within the run whose centre is `middle`.

    For a metric of stationary increments, or one that changes at a time drawn evenly from the run,
    the change point in this window is distributed symmetrically about its centre, so that an
    unrelated metric has a mean lead of 0; in the whole run most of it would lie on one side. What
    changes outside the window is not seen. Empty where `middle` is NaN.
    """
    times_T = np.asarray(times_T, np.float64)
    reach = min(middle - times_T[0], times_T[-1] - middle)
    inside = np.flatnonzero(np.abs(times_T - middle) <= reach * (1 + 1e-9))
    return slice(int(inside[0]), int(inside[-1]) + 1) if len(inside) else slice(0, 0)


def window_transition(times_T: ArrayLike, values_T: ArrayLike, loss: Transition) -> Transition:
    """Return a metric's transition in the window around the loss's; see `MIN_CHECKPOINTS`."""
    return _part_transition(times_T, values_T, window_around(times_T, loss.middle))


def _part_transition(times_T: ArrayLike, values_T: ArrayLike, part: slice) -> Transition:
    times_T, values_T = (np.asarray(x_T, np.float64)[part] for x_T in (times_T, values_T))
    enough = np.isfinite(values_T).sum() >= MIN_CHECKPOINTS
    return transition(times_T, values_T) if enough else NO_TRANSITION


def transition(times_T: ArrayLike, values_T: ArrayLike) -> Transition:
    """Return the change of level, sudden or gradual, that fits a series best.

    The exact least squares over all functions that are constant up to one checkpoint, then go in a
    straight line to another level, which they reach at a later checkpoint and keep. Each level
    holds at least `MIN_LEVEL` checkpoints. The change point is the middle. Of equal fits the
    earliest.

    Args:
        times_T: increasing; on the scale on which time is measured.
        values_T: missing ones (NaN) are left out. With fewer than four, or where all are equal,
            every field of the transition is NaN.
    """
    times_T, values_T = np.asarray(times_T, np.float64), np.asarray(values_T, np.float64)
    known = np.isfinite(values_T)
    times_T, values_T = times_T[known], values_T[known]
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


def mean_over_seeds(
    values_S: ArrayLike, *, resamples: int, confidence: float, rng: np.random.Generator
) -> Estimate:
    """Return the mean over training seeds with a bootstrap interval; none below `MIN_SEEDS`.

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


def lead_p_value(leads_S: ArrayLike, *, resolution: float) -> float:
    """Return the two-sided p-value, above 0, of a mean lead of 0 over seeds; NaN below `MIN_SEEDS`.

    It is the larger of two p-values of the t statistic: Student's, for normal leads; and that for
    leads drawn evenly from an interval about 0, as those of a metric are that changes at any time
    in its window. For few seeds the second has far heavier tails (Hotelling 1961).

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
    null_N = _uniform_null(size)
    at_least = len(null_N) - np.searchsorted(null_N, t)
    return max(float(2 * stats.t.sf(t, size - 1)), (1 + at_least) / (1 + len(null_N)))


@cache
def _uniform_null(size: int) -> Floats:
    """Return |t| (N,), increasing, of `size` values drawn evenly from -1 to 1."""
    values_NS = np.random.default_rng(0).uniform(-1, 1, (NULL_DRAWS, size))
    t_N = values_NS.mean(axis=1) / (values_NS.std(axis=1, ddof=1) / np.sqrt(size))
    return np.sort(np.abs(t_N))


def verdict(lead: Estimate, adjusted: float, *, tolerance: float, level: float = 0.05) -> str:
    """Return whether a metric changes `before`, `with` or `after` the test loss, or `undecided`.

    Args:
        lead: time of the loss's change minus that of the metric's; positive is before.
        adjusted: p-value of a lead of 0, corrected for the number of metrics.
        tolerance: the distance of neighbouring checkpoints there. Where the whole interval lies
            within it the two change together; shorter leads cannot be seen.
    """
    if not np.isfinite([lead.low, lead.high]).all():
        return "undecided"
    if lead.within(0.0, tolerance):
        return "with"
    if adjusted <= level and not lead.contains(0.0):
        return "before" if lead.value > 0 else "after"
    return "undecided"


@dataclass(frozen=True)
class Comovement:
    """Whether metrics move at the checkpoints at which the loss moves; arrays over metrics.

    Attributes:
        correlation_M: mean over seeds of the correlation of increments, -1 to 1.
        p_M: two-sided, of one metric alone.
        adjusted_M: corrected over all metrics.
    """

    correlation_M: Floats
    p_M: Floats
    adjusted_M: Floats


def comovement(
    losses: list[Floats], metrics: list[Floats], *, draws: int, rng: np.random.Generator
) -> Comovement:
    """Correlate the increments of metrics with those of the loss, over the runs of one task.

    The null shifts each run's loss increments around a circle by a random distance, one for all
    metrics, independently for each run. That keeps the autocorrelation of both series, which
    permuting checkpoints would not, and assumes that their increments are stationary.

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
    return Comovement(correlation_M, *permutation_p_values(np.abs(correlation_M), np.abs(null_NM)))


def _increments(values_MT: Floats) -> Floats:
    """Return changes between checkpoints, centred and of length 1 per row; 0 where missing."""
    steps_MD = np.diff(values_MT, axis=1)
    known_MD = np.isfinite(steps_MD)
    mean_M = np.sum(steps_MD, axis=1, where=known_MD) / np.maximum(1, known_MD.sum(axis=1))
    centred_MD = np.where(known_MD, steps_MD - mean_M[:, None], 0.0)
    # What rounding leaves of equal steps is no movement.
    scale_M = np.abs(np.where(known_MD, steps_MD, 0.0)).max(axis=1, initial=0.0)
    length_M = np.linalg.norm(centred_MD, axis=1)
    length_M = np.where(length_M > 1e-12 * scale_M, length_M, np.inf)
    return centred_MD / length_M[:, None]
