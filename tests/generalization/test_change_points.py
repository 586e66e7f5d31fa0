"""Change points and leads against brute force, scipy, hand-worked cases and simulation."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from clearnets.analysis.multiple_testing import holm
from clearnets.analysis.statistics import NOTHING, Estimate
from clearnets.generalization import change_points


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def is_share(hits: int, runs: int, share: float) -> bool:
    return scipy_stats.binomtest(int(hits), runs, share).pvalue > 1e-4


def best_ramp(times, values) -> float:
    """Smallest residual of all ramps between checkpoints, each fitted by numpy's least squares."""
    residuals = []
    for first, last in combinations(range(len(times)), 2):
        if first < 1 or last > len(times) - 2:
            continue
        ramp = [min(1, max(0, (t - times[first]) / (times[last] - times[first]))) for t in times]
        design = np.stack([np.ones(len(times)), ramp], axis=1)
        fit = np.linalg.lstsq(design, values, rcond=None)[0]
        residuals.append(float(np.square(values - design @ fit).sum()))
    return min(residuals)


@pytest.mark.parametrize("seed", range(8))
def test_the_transition_is_the_best_of_all_ramps(seed):
    times, values = np.sort(rng(seed).uniform(0, 10, 12)), rng(seed + 100).normal(size=12)
    found = change_points.transition(times, values)
    ramp = np.clip((times - found.onset) / (found.end - found.onset), 0, 1)
    residual = np.square(values - found.before - (found.after - found.before) * ramp).sum()
    assert residual == pytest.approx(best_ramp(times, values))
    total = np.square(values - values.mean()).sum()
    assert found.explained == pytest.approx(1 - residual / total)
    assert found.middle == pytest.approx((found.onset + found.end) / 2)


def test_a_jump_and_a_ramp_by_hand():
    times = np.arange(8.0)
    jump = change_points.transition(times, [3, 3, 3, 3, 1, 1, 1, 1])
    assert (jump.onset, jump.middle, jump.end) == (3, 3.5, 4)
    assert (jump.before, jump.after, jump.explained) == pytest.approx((3, 1, 1))
    ramp = change_points.transition(times, [0, 0, 0, 1, 2, 3, 3, 3])
    assert (ramp.onset, ramp.middle, ramp.end) == (2, 3.5, 5)
    assert (ramp.before, ramp.after, ramp.explained) == pytest.approx((0, 3, 1))
    # A level holds two checkpoints, even where one alone would fit better.
    assert change_points.transition(times, [0, 0, 0, 0, 0, 0, 0, 9]).end == 6


def test_missing_values_are_left_out_and_nothing_is_no_transition():
    times = np.arange(9.0)
    found = change_points.transition(times, [3, 3, math.nan, 3, 3, 1, 1, 1, 1])
    assert found.middle == 4.5
    assert change_points.transition(times, np.ones(9)) == change_points.NO_TRANSITION
    few = [0, 1, 2, *[math.nan] * 6]
    assert change_points.transition(times, few) == change_points.NO_TRANSITION


def largest_movement(values, sign) -> float:
    """By all pairs of an earlier and a later value."""
    return max(sign * (later - earlier) for earlier, later in combinations(values, 2))


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_leg_is_the_largest_movement_of_all_pairs(seed, rising):
    values = walks((25,), rng(seed))
    found = values[change_points.largest_segment(values, rising=rising)]
    sign = 1 if rising else -1
    movement = largest_movement(values, sign)
    assert largest_movement(found, sign) == pytest.approx(movement)
    # It begins and ends where the movement does, or near.
    assert sign * (found[-1] - found[0]) >= (1 - 2 * change_points.NEAR) * movement
    assert np.ptp(found) <= (1 + 2 * change_points.NEAR) * movement


def test_legs_by_hand():
    values = [4, 4, 4.1, 5, 8, 7.9, 8, 4, 0.2, 0, 0.1, math.nan]
    assert change_points.largest_segment(values, rising=False) == slice(4, 11)
    # 4.1 is near the low of this movement of 4, 5 is not; 8 stays until the loss falls.
    assert change_points.largest_segment(values, rising=True) == slice(0, 7)
    missing = [math.nan, *values]
    assert change_points.largest_segment(missing, rising=False) == slice(5, 12)
    # Noise on a level does not cut it.
    assert change_points.largest_segment(
        [5.0, 5.1, 5.0, 5.0, 2, 1, 1.1, 1.0], rising=False
    ) == slice(0, 8)
    for still in ([1.0, 2, 3], [2.0, 2, 2], [math.nan] * 3, []):
        assert change_points.largest_segment(still, rising=False) == slice(0, 0)


def test_as_much_time_before_a_change_as_after_it():
    times = np.arange(11.0)
    assert change_points.window_around(times, 7.5) == slice(5, 11)
    assert change_points.window_around(times, 3.0) == slice(0, 7)
    assert change_points.window_around(times, 5.0) == slice(0, 11)
    assert change_points.window_around(times, math.nan) == slice(0, 0)
    values = np.where(times < 3, 1.0, 2.0)
    loss = change_points.transition(times, np.where(times < 4, 5.0, 1.0))
    assert change_points.window_transition(times, values, loss).middle == 2.5
    # A window that is too small is not asked.
    late = change_points.transition(times, np.where(times < 9, 5.0, 1.0))
    assert change_points.window_transition(times, values, late) == change_points.NO_TRANSITION
    assert (
        change_points.segment_transition(times[:5], [5, 5, 1, 1, 1], rising=False)
        == change_points.NO_TRANSITION
    )
    assert (
        change_points.segment_transition(times[:6], [5, 5, 1, 1, 1, 1], rising=False).middle == 1.5
    )


def unrelated_families(kind: str, *, whole: bool) -> tuple[int, int]:
    """Of families of six metrics that move without regard to the loss, how many have a lead; with
    all of the run, or only its part around the loss's change. The loss rises, then falls late."""
    families, runs, generator = 0, 60, rng(21)
    times = np.log10(1 + np.unique(np.round(np.logspace(0, 3.3, 26)).astype(int)))
    span = np.ptp(times)
    tolerance = float(np.median(np.diff(times)))
    for _ in range(runs):
        falls = times[0] + span * generator.uniform(0.65, 0.75, size=5)
        losses = [
            change_points.segment_transition(
                times, np.where(times < at, 4 + times, 0), rising=False
            )
            for at in falls
        ]
        leads_MS = np.zeros((6, 5))
        for m in range(6):
            for s, loss in enumerate(losses):
                if kind == "walk":
                    values = walks((len(times),), generator)
                else:
                    at = times[0] + span * generator.uniform()
                    values = np.tanh(12 * (times - at)) + 0.02 * generator.normal(size=len(times))
                found = (
                    change_points.transition(times, values)
                    if whole
                    else change_points.window_transition(times, values, loss)
                )
                leads_MS[m, s] = loss.middle - found.middle
        p_M = [change_points.lead_p_value(leads_S, resolution=tolerance) for leads_S in leads_MS]
        families += bool(np.nanmin(holm(p_M)) <= 0.05)
    return families, runs


@pytest.mark.parametrize("kind", ["jump", "walk"])
def test_what_is_unrelated_to_the_loss_seldom_leads(kind):
    families, runs = unrelated_families(kind, whole=False)
    assert families <= runs * 0.05 + 3 * math.sqrt(runs * 0.05 * 0.95)
    # Over the whole run most of a late change's past is before it, and much would lead.
    naive, _ = unrelated_families(kind, whole=True)
    assert naive > 2 * families
    assert naive > runs * 0.1


@pytest.mark.parametrize("seeds", [5, 10])
def test_intervals_over_few_seeds_cover_as_they_say(seeds):
    runs, hits = 600, 0
    options = {"resamples": 4000, "confidence": 0.9, "rng": rng(1)}
    for values in rng(2).normal(3, 1, size=(runs, seeds)):
        hits += change_points.mean_over_seeds(values, **options).contains(3)
    assert is_share(hits, runs, 0.9)


def test_fewer_than_five_seeds_have_no_interval():
    options = {"resamples": 100, "confidence": 0.95, "rng": rng()}
    four = change_points.mean_over_seeds([1, 2, 3, 4, math.nan], **options)
    assert four.value == 2.5
    assert math.isnan(four.low)
    assert math.isnan(change_points.mean_over_seeds([math.nan], **options).value)
    assert math.isnan(change_points.lead_p_value([1, 2, 3, 4], resolution=1))


def test_p_of_no_lead_is_students_or_that_of_even_leads():
    leads = [0.1, 0.3, -0.2, 0.2, 0.1]
    t = np.mean(leads) / (np.std(leads, ddof=1) / math.sqrt(5))
    assert change_points.lead_p_value(leads, resolution=0.1) == pytest.approx(
        2 * scipy_stats.t.sf(t, 4)
    )
    assert change_points.lead_p_value([0.0] * 5, resolution=0.1) == 1
    # Far out, the share of even samples of n in which |t| is so large is Student's times
    # 2 (1/2)^n / n over (pi n)^(-n/2) gamma(n/2): Hotelling's ratio, here for n = 5.
    ratio = 2 * 0.5**5 / 5 / ((math.pi * 5) ** -2.5 * math.gamma(2.5))
    assert ratio == pytest.approx(9.2, abs=0.05)
    shares = [
        change_points.lead_p_value([1 - x, 1, 1, 1, 1 + x], resolution=1e-3) for x in (0.2, 0.1)
    ]
    for x, share in zip((0.2, 0.1), shares):
        student = 2 * scipy_stats.t.sf(math.sqrt(5) / (x / math.sqrt(2)), 4)
        assert 2 < share / student < ratio
    drawn = rng(3).uniform(-1, 1, (100_000, 5))
    t = math.sqrt(5) / (0.2 / math.sqrt(2))
    hits = (np.abs(scipy_stats.ttest_1samp(drawn, 0, axis=1).statistic) >= t).sum()
    assert is_share(int(hits), len(drawn), shares[0])


def test_equal_leads_are_no_more_certain_than_checkpoints_allow():
    # By hand: the variance is that of two roundings to a checkpoint, 2 / 12.
    t = 2 / math.sqrt(1 / 6 / 5)
    found = change_points.lead_p_value([2.0] * 5, resolution=1.0)
    assert found >= 2 * scipy_stats.t.sf(t, 4) > 0
    assert found == change_points.lead_p_value([0.2] * 5, resolution=0.1)
    assert change_points.lead_p_value([1.0] * 5, resolution=1.0) > found
    # Leads that differ by more than rounding are not held back.
    wide = [1.0, 2.0, 3.0, 2.0, 2.0]
    assert change_points.lead_p_value(wide, resolution=1.0) == change_points.lead_p_value(
        wide, resolution=1e-6
    )


def test_holm_by_hand():
    adjusted = holm([0.01, math.nan, 0.04, 0.03, 0.005])
    # 4 x .005, 3 x .01, 2 x .03, then .04 may not fall below what came before.
    assert adjusted[[4, 0, 3, 2]] == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert math.isnan(adjusted[1])
    assert holm([0.9, 0.8]).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("lead", "adjusted", "expected"),
    [
        (Estimate(0.5, 0.3, 0.7), 0.01, "before"),
        (Estimate(-0.5, -0.7, -0.3), 0.01, "after"),
        (Estimate(0.5, 0.3, 0.7), 0.20, "undecided"),
        (Estimate(0.1, -0.3, 0.5), 0.01, "undecided"),
        (Estimate(0.05, 0.01, 0.09), 0.01, "with"),
        (Estimate(0.0, -0.1, 0.1), 1.00, "with"),
        (NOTHING, math.nan, "undecided"),
    ],
)
def test_verdicts(lead, adjusted, expected):
    assert change_points.verdict(lead, adjusted, tolerance=0.1) == expected


def test_metrics_without_a_lead_are_seldom_before_or_after():
    runs, family = 300, 0
    options = {"resamples": 200, "confidence": 0.95, "rng": rng(11)}
    for leads_MS in rng(12).normal(size=(runs, 8, 5)):
        adjusted_M = holm([change_points.lead_p_value(x_S, resolution=0.1) for x_S in leads_MS])
        verdicts = {
            change_points.verdict(
                change_points.mean_over_seeds(leads_S, **options), adjusted, tolerance=0.1
            )
            for leads_S, adjusted in zip(leads_MS, adjusted_M)
            if adjusted <= 0.05
        }
        family += bool(verdicts & {"before", "after"})
    # Not above its level; the interval asks for a little more than the test.
    assert family <= runs * 0.05 + 4 * math.sqrt(runs * 0.05 * 0.95)
    assert family > 0


def walks(shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Random walks with autocorrelated increments, as smooth as training curves."""
    noise = generator.normal(size=(*shape[:-1], shape[-1] + 30))
    steps = np.zeros_like(noise)
    for t in range(1, noise.shape[-1]):
        steps[..., t] = 0.8 * steps[..., t - 1] + noise[..., t]
    return steps[..., 30:].cumsum(axis=-1)


def test_what_moves_together_correlates_by_its_increments():
    losses = list(walks((5, 40), rng(3)))
    metrics = [
        np.stack([2 - 3 * loss, walks((40,), rng(seed)), np.arange(40.0)])
        for seed, loss in enumerate(losses)
    ]
    found = change_points.comovement(losses, metrics, draws=999, rng=rng())
    assert found.correlation_M[0] == pytest.approx(-1)
    expected = [np.corrcoef(np.diff(a), np.diff(m[1]))[0, 1] for a, m in zip(losses, metrics)]
    assert found.correlation_M[1] == pytest.approx(np.mean(expected))
    # A metric that only rises steadily moves with nothing.
    assert math.isnan(found.correlation_M[2])
    assert math.isnan(found.adjusted_M[2])
    assert found.adjusted_M[0] <= 0.01
    assert found.p_M[1] > 0.05


def test_unrelated_walks_are_seldom_found_together():
    runs, alone, family, naive = 300, 0, 0, 0
    generator = rng(4)
    for _ in range(runs):
        losses, metrics = list(walks((3, 40), generator)), list(walks((3, 4, 40), generator))
        found = change_points.comovement(losses, metrics, draws=199, rng=generator)
        alone += found.p_M[0] <= 0.05
        family += (found.adjusted_M <= 0.05).any()
        # What permuting checkpoints would have found, by its normal limit.
        error = 1 / math.sqrt(3 * 38)
        naive += abs(found.correlation_M[0]) > scipy_stats.norm.ppf(0.975) * error
    assert is_share(alone, runs, 0.05)
    assert is_share(family, runs, 0.05)
    assert naive > 0.15 * runs
