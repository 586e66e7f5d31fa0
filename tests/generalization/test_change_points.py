"""The statistics of the question against brute force, scipy, hand-worked cases and simulation."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from clearnets.analysis.statistics import NOTHING, Estimate
from clearnets.generalization import change_points


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def within_binomial(hits: int, runs: int, share: float, sigmas: float = 4) -> bool:
    return abs(hits - runs * share) <= sigmas * math.sqrt(runs * share * (1 - share))


# When.


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
    found = values[change_points.leg(values, rising=rising)]
    sign = 1 if rising else -1
    movement = largest_movement(values, sign)
    assert largest_movement(found, sign) == pytest.approx(movement)
    # It begins and ends where the movement does, or near.
    assert sign * (found[-1] - found[0]) >= (1 - 2 * change_points.NEAR) * movement
    assert np.ptp(found) <= (1 + 2 * change_points.NEAR) * movement


def test_legs_by_hand():
    values = [4, 4, 4.1, 5, 8, 7.9, 8, 4, 0.2, 0, 0.1, math.nan]
    assert change_points.leg(values, rising=False) == slice(4, 11)
    # 4.1 is near the low of this movement of 4, 5 is not; 8 stays until the loss falls.
    assert change_points.leg(values, rising=True) == slice(0, 7)
    missing = [math.nan, *values]
    assert change_points.leg(missing, rising=False) == slice(5, 12)
    # Noise on a level does not cut it.
    assert change_points.leg([5.0, 5.1, 5.0, 5.0, 2, 1, 1.1, 1.0], rising=False) == slice(0, 8)
    for still in ([1.0, 2, 3], [2.0, 2, 2], [math.nan] * 3, []):
        assert change_points.leg(still, rising=False) == slice(0, 0)


def test_as_much_time_before_a_change_as_after_it():
    times = np.arange(11.0)
    assert change_points.around(times, 7.5) == slice(5, 11)
    assert change_points.around(times, 3.0) == slice(0, 7)
    assert change_points.around(times, 5.0) == slice(0, 11)
    assert change_points.around(times, math.nan) == slice(0, 0)
    values = np.where(times < 3, 1.0, 2.0)
    loss = change_points.transition(times, np.where(times < 4, 5.0, 1.0))
    assert change_points.near_change(times, values, loss).middle == 2.5
    # A window that is too small is not asked.
    late = change_points.transition(times, np.where(times < 9, 5.0, 1.0))
    assert change_points.near_change(times, values, late) == change_points.NO_TRANSITION
    assert (
        change_points.of_leg(times[:5], [5, 5, 1, 1, 1], rising=False)
        == change_points.NO_TRANSITION
    )
    assert change_points.of_leg(times[:6], [5, 5, 1, 1, 1, 1], rising=False).middle == 1.5


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
            change_points.of_leg(times, np.where(times < at, 4 + times, 0), rising=False)
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
                    else change_points.near_change(times, values, loss)
                )
                leads_MS[m, s] = loss.middle - found.middle
        p_M = [change_points.no_lead(leads_S, resolution=tolerance) for leads_S in leads_MS]
        families += bool(np.nanmin(change_points.holm(p_M)) <= 0.05)
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
        hits += change_points.over_seeds(values, **options).contains(3)
    assert within_binomial(hits, runs, 0.9)


def test_fewer_than_five_seeds_have_no_interval():
    options = {"resamples": 100, "confidence": 0.95, "rng": rng()}
    four = change_points.over_seeds([1, 2, 3, 4, math.nan], **options)
    assert four.value == 2.5
    assert math.isnan(four.low)
    assert math.isnan(change_points.over_seeds([math.nan], **options).value)
    assert math.isnan(change_points.no_lead([1, 2, 3, 4], resolution=1))


def test_p_of_no_lead_is_students_or_that_of_even_leads():
    leads = [0.1, 0.3, -0.2, 0.2, 0.1]
    t = np.mean(leads) / (np.std(leads, ddof=1) / math.sqrt(5))
    assert change_points.no_lead(leads, resolution=0.1) == pytest.approx(2 * scipy_stats.t.sf(t, 4))
    assert change_points.no_lead([0.0] * 5, resolution=0.1) == 1
    # Far out, the share of even samples of n in which |t| is so large is Student's times
    # 2 (1/2)^n / n over (pi n)^(-n/2) gamma(n/2): Hotelling's ratio, here for n = 5.
    ratio = 2 * 0.5**5 / 5 / ((math.pi * 5) ** -2.5 * math.gamma(2.5))
    assert ratio == pytest.approx(9.2, abs=0.05)
    shares = [change_points.no_lead([1 - x, 1, 1, 1, 1 + x], resolution=1e-3) for x in (0.2, 0.1)]
    for x, share in zip((0.2, 0.1), shares):
        student = 2 * scipy_stats.t.sf(math.sqrt(5) / (x / math.sqrt(2)), 4)
        assert 2 < share / student < ratio
    drawn = rng(3).uniform(-1, 1, (100_000, 5))
    t = math.sqrt(5) / (0.2 / math.sqrt(2))
    hits = (np.abs(scipy_stats.ttest_1samp(drawn, 0, axis=1).statistic) >= t).sum()
    assert within_binomial(int(hits), len(drawn), shares[0])


def test_equal_leads_are_no_more_certain_than_checkpoints_allow():
    # By hand: the variance is that of two roundings to a checkpoint, 2 / 12.
    t = 2 / math.sqrt(1 / 6 / 5)
    found = change_points.no_lead([2.0] * 5, resolution=1.0)
    assert found >= 2 * scipy_stats.t.sf(t, 4) > 0
    assert found == change_points.no_lead([0.2] * 5, resolution=0.1)
    assert change_points.no_lead([1.0] * 5, resolution=1.0) > found
    # Leads that differ by more than rounding are not held back.
    wide = [1.0, 2.0, 3.0, 2.0, 2.0]
    assert change_points.no_lead(wide, resolution=1.0) == change_points.no_lead(
        wide, resolution=1e-6
    )


def test_holm_by_hand():
    adjusted = change_points.holm([0.01, math.nan, 0.04, 0.03, 0.005])
    # 4 x .005, 3 x .01, 2 x .03, then .04 may not fall below what came before.
    assert adjusted[[4, 0, 3, 2]] == pytest.approx([0.02, 0.03, 0.06, 0.06])
    assert math.isnan(adjusted[1])
    assert change_points.holm([0.9, 0.8]).tolist() == [1, 1]


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
        adjusted_M = change_points.holm(
            [change_points.no_lead(x_S, resolution=0.1) for x_S in leads_MS]
        )
        verdicts = {
            change_points.verdict(
                change_points.over_seeds(leads_S, **options), adjusted, tolerance=0.1
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
    found = change_points.together(losses, metrics, draws=999, rng=rng())
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
        found = change_points.together(losses, metrics, draws=199, rng=generator)
        alone += found.p_M[0] <= 0.05
        family += (found.adjusted_M <= 0.05).any()
        # What permuting checkpoints would have found, by its normal limit.
        error = 1 / math.sqrt(3 * 38)
        naive += abs(found.correlation_M[0]) > scipy_stats.norm.ppf(0.975) * error
    assert within_binomial(alone, runs, 0.05)
    assert within_binomial(family, runs, 0.05)
    assert naive > 0.15 * runs


# How well.


def tied_runs(seed: int, runs: int = 14, metrics: int = 3) -> tuple[np.ndarray, np.ndarray]:
    values = rng(seed).integers(0, 6, size=(metrics, runs)).astype(float)
    return values, rng(seed + 50).integers(0, 8, size=runs).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_kendall_is_scipys(seed):
    metrics, gap = tied_runs(seed)
    metrics[2] = 1
    found = change_points.kendall(metrics, gap)
    for metric, value in zip(metrics[:2], found):
        assert value == pytest.approx(scipy_stats.kendalltau(metric, gap).statistic)
    assert math.isnan(found[2])


def test_bootstrapped_tau_is_scipys_on_the_same_runs():
    metrics, gap = tied_runs(1)
    draws = change_points.kendall_draws(metrics, gap, resamples=20, rng=rng(9))
    times = rng(9).multinomial(14, np.full(14, 1 / 14), size=20)
    for drawn, taus in zip(times, draws):
        rows = np.repeat(np.arange(14), drawn)
        expected = [scipy_stats.kendalltau(m[rows], gap[rows]).statistic for m in metrics]
        assert taus == pytest.approx(expected)


def score_by_definition(metric, gap, settings) -> float:
    """I(V; G | U) / H(G | U), least over sets U, from counts of ordered pairs in plain Python."""

    def sign(x: float) -> int:
        return int(x > 0) - int(x < 0)

    def entropy(counter: Counter) -> float:
        total = sum(counter.values())
        return -sum(n / total * math.log2(n / total) for n in counter.values())

    runs = range(len(gap))
    pairs = [(i, j) for i in runs for j in runs if i != j and gap[i] != gap[j]]
    scores = []
    for size in range(3):
        for chosen in combinations(range(len(settings[0])), size):
            rows = [
                (
                    sign(metric[i] - metric[j]),
                    sign(gap[i] - gap[j]),
                    tuple((settings[i][h], settings[j][h]) for h in chosen),
                )
                for i, j in pairs
            ]
            h_u = entropy(Counter(u for _, _, u in rows))
            h_gu = entropy(Counter((g, u) for _, g, u in rows))
            h_vu = entropy(Counter((v, u) for v, _, u in rows))
            h_vgu = entropy(Counter(rows))
            if h_gu - h_u > 1e-12:
                scores.append((h_vu + h_gu - h_vgu - h_u) / (h_gu - h_u))
    return 100 * min(scores)


@pytest.mark.parametrize("seed", range(6))
def test_conditional_information_is_its_definition(seed):
    metrics, gap = tied_runs(seed)
    settings = rng(seed + 200).integers(0, 3, size=(14, 3))
    found = change_points.conditional_information(metrics, gap, settings)
    expected = [score_by_definition(m, gap, settings.tolist()) for m in metrics]
    assert found == pytest.approx(expected, abs=1e-4)


def grid() -> np.ndarray:
    """All combinations of three, two, two and two values."""
    return np.array(np.meshgrid(range(3), range(2), range(2), range(2))).reshape(4, -1).T


def test_conditional_information_by_hand():
    # Four runs, no hyper-parameter. Of 6 pairs the metric orders 5 as the gap: 1 - H(1/6).
    metric, gap = np.array([[0.0, 1, 3, 2]]), np.arange(4.0)
    share = 1 / 6
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    nothing = np.zeros((4, 0), int)
    found = change_points.conditional_information(metric, gap, nothing)
    assert found == pytest.approx(100 * (1 - entropy))
    # Of a pair with unlike values of this hyper-parameter it says the order. Within each of its
    # values the metric orders two of three pairs as the gap: 1 - H(1/3), less than the 1 - H(2/15)
    # of all pairs.
    metric, gap = np.array([[0.0, 2, 1, 3, 5, 4]]), np.arange(6.0)
    settings = np.array([[0], [0], [0], [1], [1], [1]])
    entropy = math.log2(3) - 2 / 3
    found = change_points.conditional_information(metric, gap, settings)
    assert found == pytest.approx(100 * (1 - entropy), abs=1e-4)
    assert math.isnan(change_points.conditional_information(metric, np.ones(6), settings)[0])


def test_what_only_repeats_a_hyper_parameter_knows_nothing():
    settings = grid()
    gap = 10 * settings[:, 0] + settings[:, 1] + rng(5).normal(0, 0.2, 24)
    metrics = np.stack([settings[:, 0] + 0.0, gap**3])
    repeats, knows = change_points.conditional_information(metrics, gap, settings)
    assert change_points.kendall(metrics, gap)[0] > 0.7
    assert repeats == pytest.approx(0, abs=1e-4)
    assert knows == pytest.approx(100, abs=1e-3)


def options(seed: int = 0, permutations: int = 199) -> dict:
    return {"permutations": permutations, "resamples": 50, "confidence": 0.95, "rng": rng(seed)}


def test_a_metric_that_orders_the_runs_is_found_among_others():
    settings = grid()
    gap = settings @ [3.0, 1, 0.5, 0.2] + rng(6).normal(0, 0.3, 24)
    metrics = np.stack([gap + rng(7).normal(0, 0.4, 24), *rng(8).normal(size=(5, 24))])
    metrics[3, 2] = math.nan
    metrics[4] = 7
    ranked = change_points.rank(metrics, gap, settings, **options(permutations=499))
    assert ranked.tau[0].low > 0.5
    assert ranked.tau_adjusted_M[0] == ranked.tau_p_M[0] == 1 / 500
    assert ranked.score_adjusted_M[0] < 0.05
    assert abs(ranked.tau[0].value) > ranked.tau_band
    assert ranked.score_M[0] > ranked.score_band
    assert (ranked.tau_adjusted_M[[1, 2, 5]] > 0.05).all()
    assert np.isnan(ranked.tau_adjusted_M[[3, 4]]).all()
    assert np.isnan(ranked.score_M[[3, 4]]).all()
    with pytest.raises(ValueError, match="at least 3"):
        change_points.rank(metrics[:, :2], gap[:2], settings[:2], **options())


def test_the_null_of_runs_holds_its_level_over_all_metrics():
    runs, alone, family, score = 120, 0, 0, 0
    settings, generator = grid()[:, :2], rng(10)
    for _ in range(runs):
        gap = settings @ generator.normal(size=2) + generator.normal(size=24)
        # Metrics that go together, and nothing to be found.
        metrics = generator.normal(size=(6, 24)) + 2 * generator.normal(size=24)
        ranked = change_points.rank(
            metrics, gap, settings, permutations=79, resamples=2, confidence=0.95, rng=generator
        )
        alone += ranked.tau_p_M[0] <= 0.05
        family += (ranked.tau_adjusted_M <= 0.05).any()
        score += (ranked.score_adjusted_M <= 0.05).any()
    assert within_binomial(alone, runs, 0.05)
    assert within_binomial(family, runs, 0.05)
    assert within_binomial(score, runs, 0.05)


def test_ranking_in_chunks_changes_nothing(monkeypatch):
    metrics, gap = tied_runs(3)
    settings = rng(4).integers(0, 2, size=(14, 2))
    whole = change_points.rank(metrics, gap, settings, **options(1))
    monkeypatch.setattr(change_points, "CHUNK", 7)
    parts = change_points.rank(metrics, gap, settings, **options(1))
    assert whole.tau == parts.tau
    assert (whole.score_adjusted_M == parts.score_adjusted_M).all()
