"""Intervals over layers and seeds against scipy, naive loops and simulation; equivalence tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from simulations import check_coverage, options, rng, usual

from clearnets.analysis import multilevel_bootstrap
from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import NO_LAYER
from clearnets.analysis.samples import Sample

SIMULATIONS = 300


def sample(values, seeds, layers, rate=None) -> Sample:
    values = np.asarray(values, np.float64)
    seeds, layers = (np.broadcast_to(x, values.shape).astype(np.int64) for x in (seeds, layers))
    rate = np.full(len(values), 0.01) if rate is None else rate
    return Sample(values, rate, rate, seeds, layers, stats.strata_ids(seeds, layers))


def over(level: str, one: Sample, *others: Sample, resamples: int = 400, seed: int = 0):
    """The interval of a mean, or of a difference of two."""
    statistic = multilevel_bootstrap.difference_over if others else multilevel_bootstrap.mean_over
    value = one.value.mean() - sum(other.value.mean() for other in others)
    samples = (one, *others)
    found = multilevel_bootstrap.intervals(
        value, lambda drawn: statistic(drawn, *samples), samples, **options(seed, resamples)
    )
    return found[level]


def nested(generator, *, seeds: int, layers: int, latents: int, spread: tuple[float, float, float]):
    """Scores about 0.7 with an effect of the seed, of the layer in that model, of the latent."""
    by_seed, by_layer, by_latent = spread
    shape = (seeds, layers, latents)
    values = 0.7 + generator.normal(0, by_seed, (seeds, 1, 1))
    values = values + generator.normal(0, by_layer, (seeds, layers, 1))
    values = values + generator.normal(0, by_latent, shape)
    ids = np.indices(shape).reshape(3, -1)
    return sample(values.ravel(), ids[0], ids[1])


def test_drawn_means_against_a_naive_loop():
    generator = rng(1)
    layers = generator.integers(0, 4, 60)
    one = sample(generator.random(60), generator.integers(0, 3, 60), layers)
    for level in multilevel_bootstrap.UPPER:
        drawn = multilevel_bootstrap.draw(level, one, resamples=20, rng=rng(2))
        means = multilevel_bootstrap.mean_over(drawn, one)
        for counts, mean in zip(drawn.counts_RU, means):
            assert counts.sum() == len(drawn.units_U)
            taken = []
            for unit, times in zip(drawn.units_U, counts):
                inside = [v for v, u in zip(one.value, getattr(one, level)) if u == unit]
                taken += inside * int(times)
            assert mean == pytest.approx(sum(taken) / len(taken))


def test_one_level_is_scipys_bootstrap_with_students_correction():
    """One latent a layer: nothing is nested, and the t interval is exact for equal weights."""
    values = rng(3).beta(6, 2, 12)
    found = over("layers", sample(values, 0, np.arange(12)), resamples=20_000)
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, rng=rng(4))
    reach = scipy_stats.t.ppf(0.975, 11) * theirs.standard_error * np.sqrt(12 / 11)
    assert found.high - found.value == pytest.approx(reach, rel=0.03)
    exact = scipy_stats.t.interval(0.95, 11, values.mean(), scipy_stats.sem(values))
    assert (found.low, found.high) == pytest.approx(exact, abs=0.03 * reach)


CASES = {
    "layers": ({"seeds": 1, "layers": 8, "latents": 15}, (0.0, 0.03, 0.12)),
    "seeds": ({"seeds": 3, "layers": 4, "latents": 10}, (0.02, 0.03, 0.12)),
}


@pytest.mark.parametrize("level", CASES)
def test_intervals_cover_the_truth_as_often_as_they_say(level):
    sizes, spread = CASES[level]
    hits, twice, generator = 0, 0, rng(5)
    for seed in range(SIMULATIONS):
        one = nested(generator, **sizes, spread=spread)
        found = over(level, one, seed=seed, resamples=300)
        hits += found.contains(0.7)
        twice += widened(found, one, level).contains(0.7)
    check_coverage(hits, SIMULATIONS)
    # Latents drawn again within what was drawn: their noise counts twice.
    assert twice > hits


def widened(found: stats.Estimate, one: Sample, level: str) -> stats.Estimate:
    """The interval if the latents within each seed and layer were drawn, too."""
    inner = stats.mean_draws(one.value, one.strata, resamples=100, rng=rng()).var()
    factor = scipy_stats.t.ppf(0.975, len(np.unique(getattr(one, level))) - 1)
    reach = np.sqrt((found.high - found.value) ** 2 + factor**2 * inner)
    return stats.Estimate(found.value, found.value - reach, found.value + reach)


def test_each_level_speaks_for_what_it_draws():
    """Latents alone miss what layers and seeds add."""
    generator, hits = rng(6), dict.fromkeys(("latents", "seeds"), 0)
    for seed in range(100):
        one = nested(generator, seeds=3, layers=4, latents=20, spread=(0.05, 0.0, 0.1))
        found = stats.mean_estimate(one.value, one.strata, **options(seed, 200))
        hits["latents"] += found.contains(0.7)
        hits["seeds"] += over("seeds", one, seed=seed, resamples=200).contains(0.7)
    check_coverage(hits["seeds"], 100)
    assert hits["latents"] < 60


def test_the_sides_of_a_contrast_share_what_is_drawn():
    """What a layer does to both families alike has no part in their difference."""
    layers = np.repeat(np.arange(8), 30)
    effect = rng(7).normal(0, 0.1, 8)[layers]
    a, b = (
        sample(m + effect + rng(s).normal(0, 0.02, 240), 0, layers) for m, s in ((0.8, 8), (0.7, 9))
    )
    found = over("layers", a, b)
    assert found.contains(0.1)
    assert found.high - found.low < 0.02
    assert over("layers", a).high - over("layers", a).low > 0.1
    by_layer = [a.value[layers == n].mean() - b.value[layers == n].mean() for n in range(8)]
    exact = scipy_stats.ttest_1samp(by_layer, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(exact), abs=0.002)


def test_tokens_have_no_layer_and_stay():
    layered = sample(rng(1).random(80), 0, np.repeat(np.arange(8), 10))
    tokens = sample(np.full(10, 0.25), 0, NO_LAYER)
    alone = over("layers", layered)
    found = over("layers", layered, tokens)
    assert found.high - found.low == pytest.approx(alone.high - alone.low)
    assert np.isnan(over("layers", tokens).low)


def test_a_single_unit_has_no_interval():
    found = over("seeds", sample(rng(1).random(20), 0, np.repeat([0, 1], 10)))
    assert found.value == pytest.approx(rng(1).random(20).mean())
    assert np.isnan(found.low)
    assert not found.equivalent(10)


def rated(seed: int, location: float) -> Sample:
    generator = rng(seed)
    rate = 10 ** generator.normal(location, 0.4, 200)
    values = 0.7 + 0.05 * np.log10(rate) + generator.normal(0, 0.1, 200)
    return sample(values, generator.integers(0, 3, 200), generator.integers(0, 5, 200), rate)


def test_rate_matching_of_drawn_units_is_that_of_their_latents():
    a, b = rated(1, -2), rated(2, -1.8)
    drawn = multilevel_bootstrap.draw("layers", a, b, resamples=8, rng=rng(3))
    drawn.counts_RU[0] = 1
    found = multilevel_bootstrap.rate_matched_over(drawn, a, b, min_stratum=20)
    sides = (a.value, a.rate, b.value, b.rate)
    whole, bins = stats.rate_matched(*sides, min_stratum=20, **options(resamples=2))
    assert found[0] == pytest.approx(whole.difference.value)
    used = [(one.low, one.high) for one in bins if one.used]
    for counts, value in zip(drawn.counts_RU, found):
        weights = dict(zip(drawn.units_U, counts))
        total = difference = 0.0
        for low, high in used:
            sides = []
            for one in (a, b):
                inside = (one.rate >= low) & (one.rate < high)
                times = [weights[layer] for layer in one.layers[inside]]
                sides.append((np.sum(times), np.sum(np.array(times) * one.value[inside])))
            (na, sa), (nb, sb) = sides
            if na and nb:
                weight = na * nb / (na + nb)
                total, difference = total + weight, difference + weight * (sa / na - sb / nb)
        assert value == pytest.approx(difference / total)


def tost(a: np.ndarray, b: np.ndarray, margin: float) -> float:
    """The p value of two one-sided tests by scipy."""
    above = scipy_stats.ttest_ind(a + margin, b, equal_var=False, alternative="greater").pvalue
    below = scipy_stats.ttest_ind(a - margin, b, equal_var=False, alternative="less").pvalue
    return max(above, below)


def test_equivalence_is_two_one_sided_tests():
    verdicts = set()
    for seed in range(40):
        generator = rng(seed)
        a = generator.normal(0.7, 0.1, 150)
        b = generator.normal(0.7 + generator.uniform(-0.03, 0.03), 0.1, 180)
        zeros = np.zeros(180, np.int64)
        found = stats.unmatched(a, zeros[:150], b, zeros, **options(seed, 4000)).difference
        p = tost(a, b, 0.02)
        # At the border the bootstrap and Welch's t may differ.
        if abs(p - 0.05) > 0.015:
            assert found.equivalent(0.02) == (p < 0.05)
            verdicts.add(found.equivalent(0.02))
    assert verdicts == {True, False}


def test_equivalence_over_layers_is_two_one_sided_paired_tests():
    verdicts = set()
    for seed in range(40):
        difference = rng(seed).normal(rng(seed).uniform(-0.02, 0.02), 0.02, 8)
        a, b = (sample(x, 0, np.arange(8)) for x in (0.7 + difference, np.full(8, 0.7)))
        found = over("layers", a, b, resamples=4000)
        above = scipy_stats.ttest_1samp(difference + 0.02, 0, alternative="greater").pvalue
        below = scipy_stats.ttest_1samp(difference - 0.02, 0, alternative="less").pvalue
        p = max(above, below)
        if abs(p - 0.05) > 0.01:
            assert found.equivalent(0.02) == (p < 0.05)
            verdicts.add(found.equivalent(0.02))
    assert verdicts == {True, False}


def test_families_that_differ_by_the_margin_are_seldom_called_equal():
    called = 0
    zeros = np.zeros(200, np.int64)
    for seed in range(SIMULATIONS):
        generator = rng(seed)
        a, b = generator.normal(0.72, 0.05, 200), generator.normal(0.70, 0.05, 200)
        found = stats.unmatched(a, zeros, b, zeros, **options(SIMULATIONS + seed, 300))
        called += found.difference.equivalent(0.02)
    low, high = usual(SIMULATIONS, 0.05)
    assert low <= called <= high
