"""Concept recovery against scikit-learn, brute force and planted latents."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from clearnets.latents import concepts
from clearnets.latents.concepts import Labels, Ranked
from clearnets.latents.store import LayerCache

ROWS, CTX, LATENTS = 12, 16, 9
SCORES = {"f1": lambda y, p: f1_score(y, p, zero_division=0), "mcc": matthews_corrcoef}


def counted(rng: np.random.Generator) -> np.ndarray:
    counted_RS = rng.random((ROWS, CTX)) < 0.8
    counted_RS[:, 0] = False
    return counted_RS


def labels_of(rng: np.random.Generator, number: int = 3, share: float = 0.2) -> Labels:
    """Random labels, also where no position counts."""
    bits_CRS = rng.random((number, ROWS, CTX)) < share
    label_RS = (bits_CRS * (1 << np.arange(number))[:, None, None]).sum(axis=0).astype(np.uint64)
    return Labels.of(label_RS, counted(rng), number)


def layer_of(acts_LRS: np.ndarray, counted_RS: np.ndarray) -> LayerCache:
    """The cache of dense activations."""
    half_LRS = (acts_LRS * counted_RS).astype(np.float16)
    latent, row, position = np.nonzero(half_LRS > 0)
    counts_L = np.bincount(latent, minlength=len(acts_LRS))
    return LayerCache(
        num_latents=len(acts_LRS),
        latent=latent.astype(np.int32),
        row=row.astype(np.int32),
        position=position.astype(np.int32),
        act=half_LRS[latent, row, position].astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(counts_L)]),
    )


def random_acts(rng: np.random.Generator, latents: int = LATENTS) -> np.ndarray:
    """Sparse activations with many ties; the first latent is dead, the last always active."""
    acts_LRS = np.round(rng.random((latents, ROWS, CTX)) * 4, 1)
    acts_LRS *= rng.random(acts_LRS.shape) < rng.uniform(0.05, 0.6, (latents, 1, 1))
    acts_LRS[0] = 0
    acts_LRS[-1] += 0.5
    return acts_LRS


def ranked(acts_LRS: np.ndarray, labels: Labels) -> Ranked:
    return concepts.rank(layer_of(acts_LRS, labels.counted_RS), labels)


def brute_force(acts_RS, labels: Labels, concept: int, score) -> tuple[float, float | None]:
    """The best score over every threshold that tells anything apart, and the highest such one."""
    act_N = acts_RS[labels.counted_RS].astype(np.float16)
    truth_N = labels.where(concept)[labels.counted_RS]
    best: tuple[float, float | None] = (0.0, None)
    for threshold in np.unique(act_N[act_N > 0])[::-1]:
        found = float(score(truth_N, act_N >= threshold))
        if found > best[0] + 1e-12:
            best = found, float(threshold)
    return best


@pytest.mark.parametrize("name", ["f1", "mcc"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_thresholds_and_scores_are_those_of_scikit_learn_over_all_thresholds(name, share):
    rng = np.random.default_rng(round(share * 100))
    on_fit, on_test = labels_of(rng, share=share), labels_of(rng, share=share)
    fit_LRS, test_LRS = random_acts(rng), random_acts(rng)
    layer = ranked(fit_LRS, on_fit), ranked(test_LRS, on_test)
    pair = concepts.pairs([layer], on_fit, on_test)[name]
    for concept in range(on_fit.concepts):
        for latent in range(LATENTS):
            best, threshold = brute_force(fit_LRS[latent], on_fit, concept, SCORES[name])
            assert pair.fit_CN[concept, latent] == pytest.approx(best, abs=1e-12)
            found = concepts.threshold_of(pair.code_CN[concept, [latent]])[0]
            assert found == pytest.approx(np.nan if threshold is None else threshold, nan_ok=True)
            act_N = test_LRS[latent][on_test.counted_RS].astype(np.float16)
            yes_N = np.zeros(len(act_N), bool) if threshold is None else act_N >= threshold
            truth_N = on_test.where(concept)[on_test.counted_RS]
            expected = SCORES[name](truth_N, yes_N)
            assert pair.test_CN[concept, latent] == pytest.approx(expected, abs=1e-12)


def test_layers_stand_one_behind_the_other():
    rng = np.random.default_rng(0)
    on_fit, on_test = labels_of(rng), labels_of(rng)
    layers = [
        (ranked(random_acts(rng), on_fit), ranked(random_acts(rng), on_test)) for _ in range(3)
    ]
    together = concepts.pairs(iter(layers), on_fit, on_test)["f1"]
    for number, layer in enumerate(layers):
        alone = concepts.pairs([layer], on_fit, on_test)["f1"]
        part = slice(number * LATENTS, (number + 1) * LATENTS)
        np.testing.assert_array_equal(together.test_CN[:, part], alone.test_CN)
        one = together.thresholds(1, number, LATENTS)
        np.testing.assert_array_equal(one.score_L, alone.fit_CN[1])
        np.testing.assert_array_equal(one.fired_L, alone.fired_CN[1])


def test_a_planted_latent_is_found_with_its_threshold():
    rng = np.random.default_rng(1)
    on_fit, on_test = labels_of(rng), labels_of(rng)
    layer = []
    for labels in (on_fit, on_test):
        acts_LRS = random_acts(rng)
        # Strong at the concept, weak at random elsewhere.
        noise_RS = rng.uniform(0.1, 1, (ROWS, CTX)) * (rng.random((ROWS, CTX)) < 0.5)
        acts_LRS[4] = np.where(labels.where(2), 2, noise_RS)
        layer.append(ranked(acts_LRS, labels))
    pair = concepts.pairs([(layer[0], layer[1])], on_fit, on_test)["f1"]
    assert pair.fit_CN[2].argmax() == 4
    assert pair.fit_CN[:, 4].argmax() == 2
    assert pair.test_CN[2, 4] == 1
    assert concepts.threshold_of(pair.code_CN[2, [4]])[0] == 2


def test_what_is_chosen_never_sees_concept_test():
    rng = np.random.default_rng(2)
    on_fit = labels_of(rng)
    fitted, tested = random_acts(rng), random_acts(rng)
    tokens_RS = rng.integers(3, 20, (ROWS, CTX))
    chosen = []
    for seed in (10, 11):
        on_test = labels_of(np.random.default_rng(seed), share=0.5)
        layer = ranked(fitted, on_fit), ranked(tested, on_test)
        pair = concepts.pairs([layer], on_fit, on_test)
        draws = concepts.draws(
            pair["f1"].fit_CN, candidates=4, resamples=5, rng=np.random.default_rng(0)
        )
        best = pair["f1"].thresholds(0, 0, LATENTS)
        main = concepts.split(*layer, best, 0, on_fit, on_test, gain=0.01, purity=0.5).main
        sets = concepts.token_sets(on_fit, tokens_RS, on_test, tokens_RS)
        codes = [pair[name].code_CN.tolist() for name in pair]
        chosen.append((codes, draws.tolist(), main, [one.ids.tolist() for one in sets]))
        assert pair["f1"].test_CN.max() > 0
    assert chosen[0] == chosen[1]


def test_the_set_of_tokens_is_the_best_of_all_sets():
    rng = np.random.default_rng(3)
    on_fit, on_test = labels_of(rng, share=0.3), labels_of(rng, share=0.3)
    fit_RS, test_RS = (rng.integers(3, 10, (ROWS, CTX)) for _ in range(2))
    found = concepts.token_sets(on_fit, fit_RS, on_test, test_RS)
    every = range(3, 10)
    for concept, one in enumerate(found):
        truth_N = on_fit.where(concept)[on_fit.counted_RS]
        token_N = fit_RS[on_fit.counted_RS]
        sets = [ids for size in range(1, 8) for ids in combinations(every, size)]
        best = max(f1_score(truth_N, np.isin(token_N, ids)) for ids in sets)
        assert one.fit == pytest.approx(best)
        truth_N = on_test.where(concept)[on_test.counted_RS]
        token_N = test_RS[on_test.counted_RS]
        assert one.test == pytest.approx(f1_score(truth_N, np.isin(token_N, one.ids)))


def test_draws_choose_the_best_of_so_many_latents():
    rng = np.random.default_rng(4)
    fit_CN = np.round(rng.random((5, 30)), 2)
    chosen_RC = concepts.draws(fit_CN, candidates=8, resamples=4000, rng=rng)
    # The r-th best of 30 is the best of 8 where it is drawn and no better one is.
    order_N = np.argsort(-fit_CN[0], kind="stable")
    counts_N = np.bincount(chosen_RC[:, 0], minlength=30)[order_N]
    left, expected = 1.0, []
    for rank in range(30):
        share = 8 / (30 - rank) if rank <= 22 else 0
        expected.append(left * share)
        left *= 1 - share
    error = np.sqrt(np.array(expected) * (1 - np.array(expected)) / 4000)
    assert (np.abs(counts_N / 4000 - expected) <= 4 * error + 1e-12).all()
    everyone = concepts.draws(fit_CN, candidates=30, resamples=2, rng=rng)
    np.testing.assert_array_equal(everyone, np.tile(fit_CN.argmax(axis=1), (2, 1)))


def test_random_latents_recover_shuffled_labels_as_well_as_any_others():
    """The null is calibrated: latents that know nothing score like it at equal numbers."""
    rng = np.random.default_rng(5)
    on_fit, on_test = labels_of(rng, 20), labels_of(rng, 20)
    means = []
    for _ in range(2):
        layer = [ranked(random_acts(rng, 60), labels) for labels in (on_fit, on_test)]
        pair = concepts.pairs([(layer[0], layer[1])], on_fit, on_test)["f1"]
        chosen_RC = concepts.draws(pair.fit_CN, candidates=15, resamples=50, rng=rng)
        means.append(pair.test_CN[np.arange(20), chosen_RC].mean(axis=1))
        # Chosen on fit, measured on test: nothing of the choice's optimism is left.
        chance = [
            f1_score(on_test.where(c)[on_test.counted_RS], np.ones(on_test.tokens))
            for c in range(20)
        ]
        assert means[-1].mean() < np.mean(chance) + 0.02
        assert pair.fit_CN.max(axis=1).mean() > pair.test_CN.max(axis=1).mean() - 0.05
    low, high = np.quantile(means[0] - means[1], [0.01, 0.99])
    assert low < 0 < high


def split_case(parts: list[tuple[float, float]]):
    """A concept whose tokens are shared out: latent i fires on the stretch parts[i] of them."""
    rng = np.random.default_rng(6)
    on_fit, on_test = labels_of(rng, 1, 0.5), labels_of(rng, 1, 0.5)
    layer = []
    for labels in (on_fit, on_test):
        tokens = np.flatnonzero(labels.where(0))
        acts_LRS = np.zeros((len(parts), ROWS, CTX))
        for acts_RS, (start, end) in zip(acts_LRS, parts):
            chosen = tokens[round(start * len(tokens)) : round(end * len(tokens))]
            acts_RS.flat[chosen] = 1
        layer.append(ranked(acts_LRS, labels))
    best = concepts.fit(
        layer[0], np.arange(len(layer[0].code_E)), int(on_fit.positives[0]), on_fit.tokens,
        concepts.f1,
    )  # fmt: skip
    return layer[0], layer[1], best, 0, on_fit, on_test


def test_a_concept_that_two_latents_share_is_split():
    found = concepts.split(*split_case([(0, 0.6), (0.6, 1), (0.2, 0.5)]), gain=0.03, purity=0.9)
    assert found.main == (0, 1)
    assert found.fit == found.test == 1
    assert found.absorbed == 0


def test_what_another_latent_of_the_concept_takes_is_absorbed():
    case = split_case([(0, 0.8), (0.8, 1), (0.1, 0.4)])
    whole = concepts.split(*case, gain=0.5, purity=0.9)
    assert whole.main == (0,)
    assert whole.absorbed == pytest.approx(0.2, abs=0.02)
    assert whole.test == pytest.approx(2 * 0.8 / 1.8, abs=0.02)
    # A latent that fires elsewhere too is none of the concept.
    assert concepts.split(*case, gain=0.5, purity=1.0).absorbed == whole.absorbed
    fitted, tested, best, concept, on_fit, on_test = case
    impure = concepts.Thresholds(best.code_L, best.score_L, best.tp_L, best.fired_L * 2)
    impure = concepts.split(fitted, tested, impure, concept, on_fit, on_test, gain=0.5, purity=0.9)
    assert impure.absorbed == 0
