"""Probes against scikit-learn, and against features that are made to be the answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

from clearnets.latents import probes
from clearnets.latents.concepts import Labels, token_sets
from clearnets.latents.probed_corpus import Split, known
from clearnets.latents.probes import Curve, Features, logistic, probe

TOKENS, LATENTS = 600, 9


def sparse_acts(rng: np.random.Generator) -> np.ndarray:
    acts = rng.random((TOKENS, LATENTS)) * (rng.random((TOKENS, LATENTS)) < 0.3)
    acts[:, -1] = 0
    return acts


@pytest.mark.parametrize("seed", [0, 1])
def test_a_logistic_regression_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    x = sparse_acts(rng)[:, [0, 1, 2]] * [1, 10, 0.1]
    truth = (x @ [2, -0.2, 9] + rng.logistic(size=TOKENS) > 0.5).astype(float)
    found = logistic(x, truth)
    spread = x.std(axis=0)
    theirs = LogisticRegression(C=1 / probes.PENALTY, tol=1e-10).fit(x / spread, truth)
    assert found.weight_K * spread == pytest.approx(theirs.coef_[0], abs=1e-4)
    assert found(x) == pytest.approx(theirs.decision_function(x / spread), abs=1e-4)


def test_weights_count_as_repeated_rows():
    rng = np.random.default_rng(2)
    x, truth = rng.normal(size=(40, 2)), (rng.random(40) < 0.4).astype(float)
    often = rng.integers(1, 5, 40)
    one = logistic(x, truth, often.astype(float))
    other = logistic(np.repeat(x, often, axis=0), np.repeat(truth, often))
    assert one.weight_K == pytest.approx(other.weight_K, abs=1e-5)
    assert one.offset == pytest.approx(other.offset, abs=1e-5)


def test_classes_that_a_line_separates_end():
    x = np.linspace(-1, 1, 20)[:, None]
    found = logistic(x, (x[:, 0] > 0).astype(float))
    assert np.isfinite(found.weight_K).all()
    assert ((found(x) > 0) == (x[:, 0] > 0)).all()


def test_a_curve_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    score = rng.integers(0, 12, TOKENS) / 4
    truth = (rng.random(TOKENS) < 0.1 + score / 5).astype(float)
    curve = Curve.of(score, truth)
    assert curve.auroc() == pytest.approx(roc_auc_score(truth, score))
    by_hand = {t: f1_score(truth, score >= t) for t in np.unique(score)}
    best = curve.threshold()
    assert by_hand[best] == pytest.approx(max(by_hand.values()))
    for threshold in (*by_hand, 0.1, 99.0):
        expected = f1_score(truth, score >= threshold, zero_division=0)  # pyright: ignore
        assert curve.f1_at(threshold) == pytest.approx(expected)


def features(rng: np.random.Generator, truth: np.ndarray) -> tuple[Features, np.ndarray]:
    acts = sparse_acts(rng)
    return Features(csr_array(acts), csr_array(acts), truth), acts


def test_latents_and_layer_are_those_of_most_correlation_and_variance():
    rng = np.random.default_rng(4)
    truth = (rng.random((2, TOKENS)) < 0.2).astype(float)
    layer, acts = features(rng, truth)
    for concept in (0, 1):
        with np.errstate(invalid="ignore"):
            size = [abs(np.corrcoef(acts[:, i], truth[concept])[0, 1]) for i in range(LATENTS)]
        order = np.argsort(-np.nan_to_num(size), kind="stable")
        assert layer.strongest(concept, 4).tolist() == order[:4].tolist()
        chosen = np.array([0, 3, 5])
        fitted = LinearRegression().fit(acts[:, chosen], truth[concept])
        expected = fitted.score(acts[:, chosen], truth[concept])
        assert layer.explained(concept, chosen) == pytest.approx(expected, abs=1e-4)


def test_a_concept_of_two_latents_needs_two():
    rng = np.random.default_rng(5)
    blank, acts = features(rng, np.zeros((1, TOKENS)))
    truth = ((acts[:, 2] > 0) | (acts[:, 6] > 0)).astype(float)
    layers = [
        Features(csr_array(rng.permutation(acts)), csr_array(acts), truth[None]),
        Features(blank.fit_TL, blank.test_TL, truth[None]),
    ]
    one, two = (probe(layers, 0, truth, size) for size in (1, 2))
    assert one.layer == two.layer == 1
    assert sorted(two.chosen_K.tolist()) == [2, 6]
    assert one.f1 < 0.9 < two.f1
    whole = probe(layers, 0, truth, None)
    assert len(whole.chosen_K) == LATENTS
    assert whole.auroc > 0.99


def test_few_rows_stand_for_all(monkeypatch):
    rng = np.random.default_rng(6)
    x = sparse_acts(rng)[:, :2]
    truth = (x.sum(axis=1) + rng.logistic(scale=0.2, size=TOKENS) > 0.6).astype(float)
    rows, labels, weights = probes._gathered(x, truth)
    assert len(rows) < TOKENS
    assert weights.sum() == TOKENS
    whole, part = logistic(x, truth), logistic(rows, labels, weights)
    assert part.weight_K == pytest.approx(whole.weight_K, abs=1e-5)
    monkeypatch.setattr(probes, "MOST", 60)
    rows, labels, weights = probes._gathered(x, truth)
    assert weights.sum() == pytest.approx(TOKENS)
    assert weights[labels == 1].sum() == pytest.approx(truth.sum())


def split_of(rng: np.random.Generator) -> Split:
    """One concept of a token, one of a pair of tokens, one of a token far back."""
    tokens = rng.integers(0, 5, (80, 20))
    label = (tokens == 3).astype(np.uint64)
    label[:, 1:] |= ((tokens[:, 1:] == 1) & (tokens[:, :-1] == 2)).astype(np.uint64) << np.uint64(1)
    far = (tokens[:, 8:] == 4) & (tokens[:, :-8] < 2)
    label[:, 8:] |= far.astype(np.uint64) << np.uint64(2)
    return Split(tokens, np.ones(tokens.shape, bool), [(label, 4)])


def test_concepts_are_of_the_kind_that_they_are_made_to_be():
    rng = np.random.default_rng(7)
    fit, test = split_of(rng), split_of(rng)
    found = known(("token", "pair", "far", "never"), fit, test, lexical=0.8)
    assert [one.kind for one in found] == ["lexical", "local", "contextual", "absent"]
    label_RS, count = fit.labels[0]
    sets = token_sets(
        Labels.of(label_RS, fit.counted_RS, count), fit.tokens_RS,
        Labels.of(test.labels[0][0], test.counted_RS, count), test.tokens_RS,
    )  # fmt: skip
    assert [one.token_set_f1 for one in found] == pytest.approx([one.test for one in sets])
    assert found[0].positives_fit == fit.truth_CT[0].sum() == (fit.tokens_RS == 3).sum()
