"""Sentences about what a latent does: which words they name, and whether it moves these."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from clearnets.autointerp.effects import PLAUSIBLE, Effect, Moves, agreement, name
from clearnets.autointerp.rules.matcher import Lexicon

# Two tokens stand for "he".
STRINGS = ["<pad>", " he", "he", " she", "ing", ",", " Mia", " Finn", " it", " we"]
LEXICON = Lexicon(STRINGS)


@pytest.mark.parametrize(
    ("effect", "sentence"),
    [
        (Effect(("he", "she")), 'Raises "he" or "she".'),
        (Effect((), ("Mia",)), 'Lowers "Mia".'),
        (Effect(("he",), ("Mia", "Finn")), 'Raises "he"; lowers "Mia" or "Finn".'),
        (Effect(), "Moves no word by much."),
    ],
)
def test_sentences(effect, sentence):
    assert effect.render() == sentence
    assert Effect.parse(sentence) == effect


def test_the_most_moved_words_are_named_each_once():
    moved_V = np.zeros(len(STRINGS))
    moved_V[[1, 2, 3, 6, 7, 8]] = [0.8, 0.9, 0.5, -0.6, -0.44, 0.02]
    assert name(moved_V, LEXICON, words=3) == Effect(("he", "she"), ("Mia",))
    assert name(moved_V, LEXICON, words=1) == Effect(("he",), ("Mia",))
    assert name(moved_V / 100, LEXICON, words=3) == Effect()
    assert name(moved_V / 100, LEXICON, words=3, least=0) == Effect(("he", "she"), ("Mia",))
    assert name(0 * moved_V, LEXICON, words=3, least=0) == Effect()


def pairs_in_order(value_V, positive_V) -> float:
    """The area under the ROC curve, by its definition."""
    wins = [
        (here > there) + (here == there) / 2
        for here, there in product(value_V[positive_V], value_V[~positive_V])
    ]
    return float(np.mean(wins))


def test_agreement_is_the_mean_area_over_the_directions_that_are_named():
    rng = np.random.default_rng(0)
    moved_IV = rng.normal(size=(4, len(STRINGS))).round(1)
    said = [Effect(("he",), ("Mia", "it")), Effect(), Effect(("we",)), Effect((), ("ing",))]
    # A token inside a word has a name of its own; "ing" begins a word here.
    assert LEXICON.words[LEXICON.word_T2[4, 0]] == "ing"
    tokens = {"he": [1, 2], "Mia": [6], "it": [8], "we": [9], "ing": [4]}

    def score(effect: Effect, moved_V) -> float:
        found = []
        for words, sign in ((effect.raised, 1), (effect.lowered, -1)):
            if words:
                positive_V = np.zeros(len(STRINGS), bool)
                positive_V[[token for word in words for token in tokens[word]]] = True
                found.append(pairs_in_order(sign * moved_V, positive_V))
        return float(np.mean(found)) if found else 0.5

    own_I, others_I = agreement(said, moved_IV, LEXICON)
    for i in range(4):
        scores = [score(effect, moved_IV[i]) for effect in said]
        assert own_I[i] == pytest.approx(scores[i])
        assert others_I[i] == pytest.approx(np.mean(np.delete(scores, i)))


def test_sums_over_positions():
    """Of two latents; the second's only position has no next token."""
    rng = np.random.default_rng(1)
    clean_PV, ablated_PV = np.log(rng.dirichlet(np.full(5, 0.2), size=(2, 3)))
    found = Moves.none(2, 5)
    found.add(np.array([0, 1, 0]), clean_PV, ablated_PV, np.array([3, -1, 0]))
    np.testing.assert_array_equal(found.count_I, [2, 1])
    np.testing.assert_array_equal(found.next_I, [2, 0])
    moved = clean_PV - ablated_PV
    np.testing.assert_allclose(found.mean_IV, [(moved[0] + moved[2]) / 2, moved[1]])
    divergence = [(np.exp(c) * (c - a)).sum() for c, a in zip(clean_PV, ablated_PV)]
    np.testing.assert_allclose(found.divergence_I, [divergence[0] + divergence[2], divergence[1]])
    np.testing.assert_allclose(found.cost_I, [moved[0, 3] + moved[2, 0], 0])
    seen = np.exp([clean_PV[[0, 2]].T, clean_PV[[1, 1]].T]).mean(axis=2) >= PLAUSIBLE
    np.testing.assert_allclose(found.plausible_IV, np.where(seen, found.mean_IV, 0))
    first, rest = found.split(1)
    assert (first.count_I.tolist(), rest.count_I.tolist()) == ([2], [1])
