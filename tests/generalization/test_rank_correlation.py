"""Rankings of metrics against scipy, their definitions, hand-worked cases and simulation."""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from clearnets.generalization import rank_correlation


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tied_runs(seed: int, runs: int = 14, metrics: int = 3) -> tuple[np.ndarray, np.ndarray]:
    values = rng(seed).integers(0, 6, size=(metrics, runs)).astype(float)
    return values, rng(seed + 50).integers(0, 8, size=runs).astype(float)


@pytest.mark.parametrize("seed", range(5))
def test_kendall_is_scipys(seed):
    metrics, gap = tied_runs(seed)
    metrics[2] = 1
    found = rank_correlation.kendall(metrics, gap)
    for metric, value in zip(metrics[:2], found):
        assert value == pytest.approx(scipy_stats.kendalltau(metric, gap).statistic)
    assert math.isnan(found[2])


def test_bootstrapped_tau_is_scipys_on_the_same_runs():
    metrics, gap = tied_runs(1)
    draws = rank_correlation.kendall_draws(metrics, gap, resamples=20, rng=rng(9))
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
    found = rank_correlation.conditional_information(metrics, gap, settings)
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
    found = rank_correlation.conditional_information(metric, gap, nothing)
    assert found == pytest.approx(100 * (1 - entropy))
    # Of a pair with unlike values of this hyper-parameter it says the order. Within each of its
    # values the metric orders two of three pairs as the gap: 1 - H(1/3), less than the 1 - H(2/15)
    # of all pairs.
    metric, gap = np.array([[0.0, 2, 1, 3, 5, 4]]), np.arange(6.0)
    settings = np.array([[0], [0], [0], [1], [1], [1]])
    entropy = math.log2(3) - 2 / 3
    found = rank_correlation.conditional_information(metric, gap, settings)
    assert found == pytest.approx(100 * (1 - entropy), abs=1e-4)
    assert math.isnan(rank_correlation.conditional_information(metric, np.ones(6), settings)[0])


def test_what_only_repeats_a_hyper_parameter_knows_nothing():
    settings = grid()
    gap = 10 * settings[:, 0] + settings[:, 1] + rng(5).normal(0, 0.2, 24)
    metrics = np.stack([settings[:, 0] + 0.0, gap**3])
    repeats, knows = rank_correlation.conditional_information(metrics, gap, settings)
    assert rank_correlation.kendall(metrics, gap)[0] > 0.7
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
    ranked = rank_correlation.rank(metrics, gap, settings, **options(permutations=499))
    assert ranked.tau[0].low > 0.5
    assert ranked.tau_adjusted_M[0] == ranked.tau_p_M[0] == 1 / 500
    assert ranked.score_adjusted_M[0] < 0.05
    assert abs(ranked.tau[0].value) > ranked.tau_band
    assert ranked.score_M[0] > ranked.score_band
    assert (ranked.tau_adjusted_M[[1, 2, 5]] > 0.05).all()
    assert np.isnan(ranked.tau_adjusted_M[[3, 4]]).all()
    assert np.isnan(ranked.score_M[[3, 4]]).all()
    with pytest.raises(ValueError, match="at least 3"):
        rank_correlation.rank(metrics[:, :2], gap[:2], settings[:2], **options())


def test_the_null_of_runs_holds_its_level_over_all_metrics():
    runs, alone, family, score = 120, 0, 0, 0
    settings, generator = grid()[:, :2], rng(10)
    for _ in range(runs):
        gap = settings @ generator.normal(size=2) + generator.normal(size=24)
        # Metrics that go together, and nothing to be found.
        metrics = generator.normal(size=(6, 24)) + 2 * generator.normal(size=24)
        ranked = rank_correlation.rank(
            metrics, gap, settings, permutations=79, resamples=2, confidence=0.95, rng=generator
        )
        alone += ranked.tau_p_M[0] <= 0.05
        family += (ranked.tau_adjusted_M <= 0.05).any()
        score += (ranked.score_adjusted_M <= 0.05).any()
    for hits in (alone, family, score):
        assert scipy_stats.binomtest(int(hits), runs, 0.05).pvalue > 1e-4


def test_ranking_in_chunks_changes_nothing(monkeypatch):
    metrics, gap = tied_runs(3)
    settings = rng(4).integers(0, 2, size=(14, 2))
    whole = rank_correlation.rank(metrics, gap, settings, **options(1))
    monkeypatch.setattr(rank_correlation, "CHUNK", 7)
    parts = rank_correlation.rank(metrics, gap, settings, **options(1))
    assert whole.tau == parts.tau
    assert (whole.score_adjusted_M == parts.score_adjusted_M).all()
