"""Metrics against scipy, scikit-learn, plain loops and cases worked out by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from clearnets.generalization import metrics

RNG = np.random.default_rng(0)


def test_moments_are_scipys():
    values = RNG.gamma(2.0, size=1000) + 50
    assert metrics.moments(values) == pytest.approx(
        {
            "mean": values.mean(),
            "variance": values.var(),
            "skewness": stats.skew(values),
            "kurtosis": stats.kurtosis(values),
        }
    )


def test_moments_of_equal_values_have_no_shape():
    found = metrics.moments(np.full(70, 0.1))
    assert found["variance"] == pytest.approx(0)
    assert math.isnan(found["skewness"])
    assert math.isnan(found["kurtosis"])


def test_activations_are_described_by_their_norms_and_covariance():
    acts = RNG.normal(size=(400, 3)) + 1e4
    found = metrics.activation_metrics(acts)
    norms = np.sqrt(np.square(acts).sum(axis=1))
    assert found["norm_mean"] == pytest.approx(norms.mean())
    assert found["norm_skewness"] == pytest.approx(stats.skew(norms))
    assert found["variance_trace"] == pytest.approx(np.trace(np.cov(acts.T, ddof=0)))


def test_fvu_is_one_minus_scikit_learns_r2():
    target, output = RNG.normal(size=(60, 4)) + 3, RNG.normal(size=(60, 4)) + 3
    expected = 1 - r2_score(target, output, multioutput="variance_weighted")
    assert metrics.fvu(target, output) == pytest.approx(expected)


def test_latents_are_described_by_their_dense_rows():
    dense = np.zeros((50, 12))
    indices = np.array([RNG.choice(11, size=4, replace=False) for _ in range(50)])
    acts = RNG.gamma(1.0, size=(50, 4))
    # Latents that a coder selects at value 0 are inactive.
    acts[RNG.random(acts.shape) < 0.2] = 0
    np.put_along_axis(dense, indices, acts, axis=1)
    mean = dense.mean(axis=0)
    assert metrics.latent_metrics(acts, indices, num_latents=12) == pytest.approx(
        {
            "l0": (dense != 0).sum() / 50,
            "dead": 1 / 12,
            "entropy": stats.entropy(mean),
            "hoyer": metrics.hoyer(mean),
            "gini": metrics.gini(mean),
        }
    )


def test_entropy_hoyer_and_gini_of_equal_values_and_of_one_alone():
    equal, alone = np.full(8, 3.0), np.eye(8)[2]
    assert metrics.entropy(equal) == pytest.approx(math.log(8))
    assert metrics.entropy(alone) == pytest.approx(0)
    assert metrics.hoyer(equal) == pytest.approx(0)
    assert metrics.hoyer(alone) == pytest.approx(1)
    assert metrics.gini(equal) == pytest.approx(0)
    assert metrics.gini(alone) == pytest.approx(7 / 8)
    for metric in (metrics.entropy, metrics.hoyer, metrics.gini):
        assert math.isnan(metric(np.zeros(8)))


def test_entropy_hoyer_and_gini_by_hand():
    values = [1.0, -3.0]
    expected = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert metrics.entropy(values) == pytest.approx(expected)
    root = math.sqrt(2)
    assert metrics.hoyer(values) == pytest.approx((root - 4 / math.sqrt(10)) / (root - 1))
    assert metrics.gini(values) == pytest.approx(0.25)


def test_gini_is_the_mean_absolute_difference():
    values = RNG.gamma(0.5, size=40)
    differences = [abs(a - b) for a in values for b in values]
    assert metrics.gini(values) == pytest.approx(np.mean(differences) / (2 * values.mean()))


def test_parameter_norm_is_that_of_all_in_one_vector():
    parts = [RNG.normal(size=(3, 4)), RNG.normal(size=7)]
    flat = np.concatenate([part.reshape(-1) for part in parts])
    assert metrics.parameter_norm(parts) == pytest.approx(np.linalg.norm(flat))


def test_singular_values_are_roots_of_eigenvalues():
    weight = RNG.normal(size=(5, 3))
    squared = metrics.singular_values(weight) ** 2
    assert squared == pytest.approx(np.linalg.eigvalsh(weight.T @ weight)[::-1])
    kernel = RNG.normal(size=(4, 2, 3))
    flat = kernel.reshape(4, 6)
    assert metrics.singular_values(kernel) == pytest.approx(metrics.singular_values(flat))


def test_ranks_of_equal_singular_values_and_by_hand():
    projection = np.diag([2.0, 2.0, 2.0, 0.0])
    values = metrics.singular_values(projection)
    assert metrics.effective_rank(values) == pytest.approx(3)
    assert metrics.stable_rank(values) == pytest.approx(3)
    assert metrics.stable_rank([2.0, 1.0]) == pytest.approx(5 / 4)
    shares = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert metrics.effective_rank([2.0, 1.0]) == pytest.approx(math.exp(shares))
    assert math.isnan(metrics.effective_rank([0.0, 0.0]))
    assert math.isnan(metrics.stable_rank([0.0, 0.0]))


def test_a_coder_in_another_order_is_the_same():
    decoder = RNG.normal(size=(20, 6))
    shuffled = RNG.permutation(decoder) * RNG.uniform(0.5, 2, size=(20, 1))
    assert metrics.matched_cosine(decoder, shuffled) == pytest.approx(1)
    assert metrics.matched_cosine(decoder, -decoder) < 0.9


def test_matched_cosine_is_the_best_of_all_assignments():
    first, second = RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
    second[1] = 0

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        length = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / length) if length else 0.0

    best = max(
        sum(cosine(first[a], second[b]) for a, b in enumerate(order))
        for order in permutations(range(5), 4)
    )
    assert metrics.matched_cosine(first, second) == pytest.approx(best / 4)
