"""Statistics against scipy, naive loops, hand-worked cases and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from simulations import check_coverage, options, rng
from sklearn.metrics import precision_score, recall_score

from clearnets.analysis import statistics as stats

ZEROS = np.zeros(1000, np.int64)


def test_balanced_accuracy_by_hand():
    found = stats.balanced_accuracy([30, 0, 5], [10, 0, 0], [40, 50, 0], [20, 50, 5])
    assert found[:2] == pytest.approx([(0.6 + 0.8) / 2, 0.5])
    assert np.isnan(found[2])


def test_precision_and_recall_are_scikit_learns():
    generator = rng(9)
    for _ in range(20):
        active, called = generator.random((2, 30)) < generator.random((2, 1))
        cells = {
            "tp": (active & called).sum(),
            "fp": (~active & called).sum(),
            "tn": (~active & ~called).sum(),
            "fn": (active & ~called).sum(),
        }
        found = stats.rates(**cells)
        options = {"zero_division": np.nan}
        expected = (
            precision_score(active, called, **options),
            recall_score(active, called, **options),
        )
        assert (found["precision"], found["recall"]) == pytest.approx(expected, nan_ok=True)
    assert np.isnan(stats.rates(0, 0, 50, 50)["precision"])


def test_interval_equals_scipys_percentile_bootstrap():
    values = rng(1).beta(6, 2, size=120)
    ours = stats.mean_estimate(values, ZEROS[:120], **options(resamples=20_000))
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=rng(2)
    ).confidence_interval
    error = values.std() / np.sqrt(120)
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(theirs, abs=0.05 * error)


def test_draws_keep_each_stratums_size():
    strata = np.repeat([3, 7, 9], [10, 40, 50])
    values = np.where(strata == 3, 1.0, np.where(strata == 7, 2.0, 5.0))
    draws = stats.mean_draws(values, strata, resamples=50, rng=rng())
    # Each stratum is constant, so resampling within strata can't move the mean.
    assert draws == pytest.approx(np.full(50, values.mean()))


def test_intervals_cover_the_truth_as_often_as_they_say():
    strata, truth, hits = np.repeat(np.arange(4), 30), 0.7, 0
    generator = rng(5)
    for seed in range(300):
        values = truth + 0.1 * (strata - 1.5) + generator.normal(0, 0.15, 120)
        hits += stats.mean_estimate(values, strata, **options(seed, 400)).contains(truth)
    check_coverage(hits, 300)


def pairs_of(generator: np.random.Generator, n: int, noise: float = 0.1) -> np.ndarray:
    """Scores of all pairs of latents with mean 0.5: an effect of the judged one, of the one whose
    explanation it is, and of the pair; zero on the diagonal."""
    judged, giver = generator.normal(0, 0.04, (n, 1)), generator.normal(0, 0.06, (1, n))
    pairs = 0.5 + judged + giver + generator.normal(0, noise, (n, n))
    np.fill_diagonal(pairs, 0)
    return pairs


def sides(pairs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Each latent's mean score as the judged one, and as the one whose explanation it is."""
    rows, columns = (
        np.concatenate([one.sum(axis=axis) / (len(one) - 1) for one in pairs]) for axis in (1, 0)
    )
    return rows, columns


def test_intervals_of_means_over_pairs_cover_the_truth_as_often_as_they_say():
    hits, naive_hits, generator = 0, 0, rng(6)
    strata = np.repeat(np.arange(3), 30)
    for seed in range(300):
        rows, columns = sides([pairs_of(generator, 30) for _ in range(3)])
        values = stats.paired(rows, columns, strata)
        assert values.mean() == pytest.approx(rows.mean())
        hits += stats.mean_estimate(values, strata, **options(seed, 400)).contains(0.5)
        naive_hits += stats.mean_estimate(rows, strata, **options(seed, 400)).contains(0.5)
    # One side alone says too little of how uncertain the mean is.
    check_coverage(hits, 300, naive_hits)


def test_intervals_of_some_latents_by_all_explanations_cover_the_truth():
    """The judged latents inside are half of each stratum; all others give explanations, too."""
    hits, naive_hits, generator, n = 0, 0, rng(7), 30
    strata, inside = np.repeat(np.arange(3), n), np.tile(np.arange(n) % 2 == 0, 3)
    for seed in range(300):
        rows, columns = sides([pairs_of(generator, n) for _ in range(3)])
        values = stats.paired(rows, columns, strata, inside)
        assert values.mean() == pytest.approx(rows[inside].mean())
        hits += stats.mean_estimate(values, strata, **options(seed, 400)).contains(0.5)
        alone = stats.mean_estimate(rows[inside], strata[inside], **options(seed, 400))
        naive_hits += alone.contains(0.5)
    everyone = stats.paired(rows, columns, strata, np.ones(3 * n, bool))
    assert everyone == pytest.approx(stats.paired(rows, columns, strata))
    check_coverage(hits, 300, naive_hits)


@pytest.mark.parametrize("givers", [1, 2])
def test_intervals_of_some_pairs_cover_the_truth_as_often_as_they_say(givers):
    """Each latent is judged by a few others' explanations, which several latents may share."""
    hits, naive_hits, generator, n = 0, 0, rng(8), 30
    judged = np.repeat(np.arange(3 * n), givers)
    stratum = judged // n
    for seed in range(300):
        pairs = np.stack([pairs_of(generator, n, 0.04 * givers) for _ in range(3)])
        other = np.argsort(generator.random((3 * n, n - 1)), axis=1)[:, :givers].ravel()
        other += other >= judged % n
        values = pairs[stratum, judged % n, other]
        found, strata = stats.sampled_pairs(values, judged, other + n * stratum, stratum)
        assert found.mean() == pytest.approx(values.mean())
        hits += stats.mean_estimate(found, strata, **options(seed, 400)).contains(0.5)
        rows = values.reshape(-1, givers).mean(axis=1)
        alone = stats.mean_estimate(rows, stratum[::givers], **options(seed, 400))
        naive_hits += alone.contains(0.5)
    check_coverage(hits, 300, naive_hits)


def test_the_variance_of_some_pairs_is_the_sum_over_pairs_that_share_a_latent():
    """By a loop over all pairs of pairs, up to the correction for the estimated mean."""
    generator, n = rng(3), 12
    judged = np.repeat(np.arange(n), 2)
    giver = (judged + np.tile([1, 3], n)) % n
    values = pairs_of(generator, n, 0.01)[judged, giver]
    found, _ = stats.sampled_pairs(values, judged, giver, np.zeros(2 * n, np.int64))
    off = (values - values.mean()) / 2
    total = sum(
        off[p] * off[q]
        for p in range(2 * n)
        for q in range(2 * n)
        if {judged[p], giver[p]} & {judged[q], giver[q]}
    )
    # Every latent is judged with weight 1 and gives with weight 1: a share of 2 / n each.
    corrected = total / n**2 / (1 - n * (2 / n) ** 2)
    assert found.var() / n == pytest.approx(corrected)


def test_unmatched_difference_is_the_difference_of_means():
    a, b = rng(1).normal(0.8, 0.1, 200), rng(2).normal(0.7, 0.1, 150)
    contrast = stats.unmatched(a, ZEROS[:200], b, ZEROS[:150], **options())
    welch = np.sqrt(a.var() / 200 + b.var() / 150)
    assert contrast.difference.value == pytest.approx(a.mean() - b.mean())
    assert contrast.difference.high - contrast.difference.low == pytest.approx(
        2 * 1.96 * welch, rel=0.1
    )


def test_nothing_to_compare_gives_no_numbers():
    none = np.zeros(0)
    contrast = stats.unmatched(none, ZEROS[:0], np.ones(3), ZEROS[:3], **options())
    assert np.isnan(contrast.difference.value)
    assert not contrast.difference.contains(0.0)
    kind = {"min_stratum": 2, **options()}
    contrast, bins = stats.rate_matched(none, none, np.ones(3), np.full(3, 0.1), **kind)
    assert np.isnan(contrast.difference.value)
    assert contrast.unmatched_b == 1
    assert [one.used for one in bins] == [False]


def test_bins_are_equally_wide_on_a_log_scale():
    assert stats.rate_bin(np.array([0.001, 0.0032, 0.00999, 0.01, 1.0]), 2).tolist() == [
        -6, -5, -5, -4, 0,
    ]  # fmt: skip
    assert stats.bin_edges(-5, 2) == pytest.approx((10**-2.5, 0.01))


def test_rate_matching_against_a_naive_loop():
    generator = rng(3)
    rate_a, rate_b = (10 ** generator.normal(m, 0.6, n) for m, n in ((-2, 300), (-1.6, 200)))
    a, b = generator.normal(0.7, 0.1, 300), generator.normal(0.6, 0.1, 200)
    contrast, bins = stats.rate_matched(a, rate_a, b, rate_b, min_stratum=20, **options())
    total = value = used_a = used_b = 0.0
    for index in range(-40, 1):
        low, high = 10 ** (index / 4), 10 ** ((index + 1) / 4)
        mine = [x for x, r in zip(a, rate_a) if low <= r < high]
        other = [x for x, r in zip(b, rate_b) if low <= r < high]
        if min(len(mine), len(other)) >= 20:
            weight = len(mine) * len(other) / (len(mine) + len(other))
            value += weight * (sum(mine) / len(mine) - sum(other) / len(other))
            total, used_a, used_b = total + weight, used_a + len(mine), used_b + len(other)
    assert contrast.difference.value == pytest.approx(value / total)
    assert (contrast.used_a, contrast.used_b) == (used_a, used_b)
    assert contrast.unmatched_a == pytest.approx(1 - used_a / 300)
    assert sum(one.n_a for one in bins) == 300


def confounded(generator: np.random.Generator, location: float, n: int):
    """Scores that depend on activity alone, at a family's own level of activity."""
    share = 1 / (1 + np.exp(-generator.normal(location, 1, n)))
    return 0.6 + 0.3 * share + generator.normal(0, 0.05, n), share


def test_matching_removes_a_difference_that_activity_makes():
    generator = rng(4)
    a, share_a = confounded(generator, -0.5, 400)
    b, share_b = confounded(generator, 0.5, 400)
    plain = stats.unmatched(a, ZEROS[:400], b, ZEROS[:400], **options())
    assert plain.difference.high < -0.02
    paired = stats.activity_matched(a, share_a, b, share_b, min_pairs=20, **options())
    assert paired.difference.contains(0)
    assert 0.1 < paired.unmatched_a < 0.6


def test_rate_matching_covers_a_real_difference_between_families_of_other_rates():
    hits = 0
    for seed in range(100):
        generator = rng(seed)
        log_a, log_b = generator.normal(-2.2, 0.5, 400), generator.normal(-1.8, 0.5, 400)
        a = 0.8 + 0.08 * log_a + 0.02 + generator.normal(0, 0.1, 400)
        b = 0.8 + 0.08 * log_b + generator.normal(0, 0.1, 400)
        arrays = (a, 10**log_a, b, 10**log_b)
        contrast, _ = stats.rate_matched(*arrays, min_stratum=20, **options(seed, 200))
        hits += contrast.difference.contains(0.02)
    check_coverage(hits, 100)


def test_matching_keeps_a_real_difference():
    generator = rng(6)
    a, share_a = confounded(generator, -0.3, 400)
    b, share_b = confounded(generator, 0.3, 400)
    paired = stats.activity_matched(a + 0.05, share_a, b, share_b, min_pairs=20, **options())
    assert paired.difference.contains(0.05)
    assert paired.difference.low > 0.02


def naive_pairs(x: np.ndarray, y: np.ndarray, caliper: float) -> list[float]:
    """Distances of greedy nearest pairs, by looking for the closest one again and again."""
    left, right, distances = list(x), list(y), []
    while left and right:
        gap, i, j = min((abs(p - q), i, j) for i, p in enumerate(left) for j, q in enumerate(right))
        if gap > caliper:
            break
        distances.append(gap)
        del left[i], right[j]
    return distances


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(0, 12), st.floats(0, 1), st.integers(0, 999))
def test_pairs_are_nearest_unique_and_within_the_caliper(n, m, caliper, seed):
    generator = rng(seed)
    x, y = generator.normal(size=n), generator.normal(size=m)
    i, j = stats.nearest_pairs(x, y, caliper=caliper, rng=generator)
    assert len(set(i.tolist())) == len(i) == len(set(j.tolist())) == len(j)
    assert sorted(np.abs(x[i] - y[j])) == pytest.approx(sorted(naive_pairs(x, y, caliper)))


def test_ties_are_not_broken_by_position():
    x, y = np.zeros(100), np.zeros(10)
    i, _ = stats.nearest_pairs(x, y, caliper=0.1, rng=rng())
    assert i.max() > 20


def test_the_same_seed_gives_the_same_numbers():
    values = rng(1).random(50)
    first, again, other = (
        stats.mean_estimate(values, ZEROS[:50], **options(seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_strata_ids_number_distinct_rows():
    ids = stats.strata_ids(np.array([0, 0, 1, 1, 0]), np.array([2, 3, 2, 2, 2]))
    assert ids.tolist() == [0, 1, 2, 2, 0]
