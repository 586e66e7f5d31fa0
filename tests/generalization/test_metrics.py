"""Metrics against scipy, scikit-learn, plain loops and cases worked out by hand."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import r2_score

from clearnets.generalization import metrics
from clearnets.generalization.metrics import Latents, Moments, Reconstruction, Variances

RNG = np.random.default_rng(0)
EXACT = 1e-9


def cut(rows: np.ndarray, at: list[int]) -> list[np.ndarray]:
    """`rows` in batches, some perhaps empty."""
    return np.split(rows, sorted(min(place, len(rows)) for place in at))


CUTS = st.lists(st.integers(0, 40), max_size=6)
ROWS = arrays(np.float64, (23, 5), elements=st.floats(-1e3, 1e3, width=32))


@given(rows=ROWS, at=CUTS, offset=st.sampled_from([0.0, 1e6]))
def test_moments_do_not_depend_on_the_batches(rows, at, offset):
    values = rows[:, 0] + offset
    whole, batched = Moments(), Moments()
    whole.add(values)
    for batch in cut(values, at):
        batched.add(batch)
    assert batched.count == whole.count == 23
    # What rounding does to a central power of the values grows with the spread and the offset.
    spread = values.std() + 1e-10 * abs(offset) + 1e-12
    assert batched.mean() == pytest.approx(whole.mean(), rel=EXACT)
    for power in (2, 3, 4):
        found, expected = (getattr(part, f"sum{power}") for part in (batched, whole))
        assert found == pytest.approx(expected, rel=EXACT, abs=23 * EXACT * spread**power)


@given(at=CUTS)
def test_every_summary_metric_and_fvu_is_the_same_for_any_batching(at):
    rng = np.random.default_rng(7)
    rows, output = rng.gamma(0.4, size=(23, 5)), rng.normal(size=(23, 5))
    whole, batched = Latents(5), Latents(5)
    fit, fit_batched = Reconstruction(5), Reconstruction(5)
    whole.add(rows)
    fit.add(rows, output)
    for batch, out in zip(cut(rows, at), cut(output, at)):
        batched.add(batch)
        fit_batched.add(batch, out)
    assert batched.summary() == pytest.approx(whole.summary(), rel=1e-12)
    assert fit_batched.fvu() == pytest.approx(fit.fvu(), rel=1e-12)


def test_moments_are_scipys():
    values = RNG.gamma(2.0, size=1000) + 50
    moments = Moments()
    moments.add(values)
    assert moments.mean() == pytest.approx(values.mean())
    assert moments.variance() == pytest.approx(values.var())
    assert moments.skewness() == pytest.approx(stats.skew(values))
    assert moments.kurtosis() == pytest.approx(stats.kurtosis(values))


def test_the_originals_moments_have_the_unbiased_variance():
    values = np.array([0.0, 0.0, 1.0, 5.0])
    moments = Moments()
    moments.add(values)
    centred, variance = values - 1.5, values.var(ddof=1)
    assert moments.variance(reference_compat=True) == pytest.approx(variance)
    skewness = (centred**3).mean() / variance**1.5
    assert moments.skewness(reference_compat=True) == pytest.approx(skewness)
    kurtosis = (centred**4).mean() / variance**2 - 3
    assert moments.kurtosis(reference_compat=True) == pytest.approx(kurtosis)


def test_moments_of_equal_values_have_no_shape():
    moments = Moments()
    for _ in range(10):
        moments.add(np.full(7, 0.1))
    assert moments.variance() == pytest.approx(0)
    assert math.isnan(moments.skewness())
    assert math.isnan(moments.kurtosis())
    assert math.isnan(Moments().mean())


def test_the_mean_far_from_zero_does_not_cost_the_variance():
    rows = RNG.normal(size=(400, 3))
    far = Variances(3)
    for batch in np.split(rows + 1e8, 20):
        far.add(batch)
    assert far.trace() == pytest.approx(np.trace(np.cov(rows.T, ddof=0)), rel=1e-6)


def test_fvu_is_one_minus_scikit_learns_r2():
    target, output = RNG.normal(size=(60, 4)) + 3, RNG.normal(size=(60, 4)) + 3
    fit = Reconstruction(4)
    for batch in range(0, 60, 17):
        fit.add(target[batch : batch + 17], output[batch : batch + 17])
    expected = 1 - r2_score(target, output, multioutput="variance_weighted")
    assert fit.fvu() == pytest.approx(expected)


def test_l0_and_dead_by_hand():
    latents = Latents(4)
    latents.add([[1, 0, 0, 2], [0, 0, 0, 3]])
    assert latents.l0() == 1.5
    assert latents.dead() == 0.5


def test_sparse_rows_are_the_dense_ones():
    dense = np.zeros((50, 12))
    indices = np.array([RNG.choice(12, size=4, replace=False) for _ in range(50)])
    acts = RNG.gamma(1.0, size=(50, 4))
    # Latents that a coder selects at value 0 are silent.
    acts[RNG.random(acts.shape) < 0.2] = 0
    np.put_along_axis(dense, indices, acts, axis=1)
    sparse, plain = Latents(12), Latents(12)
    for start in range(0, 50, 13):
        sparse.add_sparse(acts[start : start + 13], indices[start : start + 13])
    plain.add(dense)
    assert sparse.summary() == pytest.approx(plain.summary())
    assert sparse.l0() == (acts != 0).sum() / 50


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


def test_the_originals_gini_and_hoyer():
    values = RNG.gamma(0.5, size=30)
    # Its formulas, term by term.
    mean_difference = np.abs(np.subtract.outer(values, values)).mean()
    gini = np.sum(mean_difference) / (2 * 30**2 * np.mean(values))
    assert metrics.gini(values, reference_compat=True) == pytest.approx(gini)
    assert gini == pytest.approx(metrics.gini(values) / 900)
    hoyer = np.linalg.norm(values, 1) / np.linalg.norm(values, 2)
    assert metrics.hoyer(values, reference_compat=True) == pytest.approx(hoyer)


def test_parameter_norm_is_that_of_all_in_one_vector():
    parts = [RNG.normal(size=(3, 4)), RNG.normal(size=7)]
    flat = np.concatenate([part.reshape(-1) for part in parts])
    assert metrics.parameter_norm(parts) == pytest.approx(np.linalg.norm(flat))


def test_singular_values_and_those_of_the_change():
    initial, weight = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
    squared = metrics.singular_values(weight) ** 2
    assert squared == pytest.approx(np.linalg.eigvalsh(weight.T @ weight)[::-1])
    change = metrics.singular_values(weight, initial)
    assert change == pytest.approx(metrics.singular_values(weight - initial))
    kernel = RNG.normal(size=(4, 2, 3))
    flat = kernel.reshape(4, 6)
    assert metrics.singular_values(kernel) == pytest.approx(metrics.singular_values(flat))
    with pytest.raises(ValueError, match="shape"):
        metrics.singular_values(np.ones(3))
    with pytest.raises(ValueError, match="did not start"):
        metrics.singular_values(weight, initial[:2])


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
