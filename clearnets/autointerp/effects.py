"""What a latent does: a sentence that names the words whose probability it raises and lowers.

    sentence := "Raises " list "." | "Lowers " list "." | "Raises " list "; lowers " list "."
              | "Moves no word by much."

A word is a token that begins one, with or without a space before it. A sentence is checked against
what ablating the latent does to the next token on other text: the area under the ROC curve with
which that ranks the words that the sentence names above all others of the vocabulary.

Shape suffixes: I latents of one layer, V vocabulary, P positions at which a latent is ablated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clearnets.autointerp.ranking import areas, mean_of_others
from clearnets.autointerp.rules.language import parse, quoted_list
from clearnets.autointerp.rules.matcher import Lexicon

LEAST = 0.01
"""Nats by which a word must be moved on average to be named."""
SHARE = 0.5
"""Share of the largest move from which other words are named beside it."""
PLAUSIBLE = 0.001
"""Mean probability of a word where the latent is active, from which it is named: words that nobody
expects there move most and matter least."""


@dataclass(frozen=True)
class Effect:
    """The words whose probability a latent raises and lowers, the most moved first."""

    raised: tuple[str, ...] = ()
    lowered: tuple[str, ...] = ()

    def render(self) -> str:
        """Return the sentence."""
        parts = [("raises", self.raised), ("lowers", self.lowered)]
        said = [f"{verb} {quoted_list(words)}" for verb, words in parts if words]
        text = "; ".join(said) or "moves no word by much"
        return f"{text[0].upper()}{text[1:]}."

    @classmethod
    def parse(cls, sentence: str) -> Effect:
        """Return what `render` made a sentence of."""
        if sentence == cls().render():
            return cls()
        words: dict[str, tuple[str, ...]] = {}
        for part in sentence[:-1].split("; "):  # No word holds a space.
            verb, _, listed = part.partition(" ")
            words[verb.lower()] = tuple(map(str, parse(f"{listed}.").clauses[0].words))
        return cls(words.get("raises", ()), words.get("lowers", ()))


def predicted(model: Any, strings: list[str]) -> Lexicon:
    """Return the words of all tokens that a model predicts.

    It may predict some that its tokenizer lacks, and lack those that were added to that.
    """
    size = model.get_output_embeddings().weight.shape[0]
    return Lexicon((strings + [""] * size)[:size])


def name(moved_V: np.ndarray, lexicon: Lexicon, *, words: int, least: float = LEAST) -> Effect:
    """Return at most `words` words in each direction, of those that move by at least `least` and
    by half as much as the one that moves most.

    Args:
        moved_V: by how much the latent raises each token, nats or another measure with its `least`;
            0 of tokens that are not to be named.
    """
    size_V = np.abs(moved_V)
    bar = max(least, SHARE * float(size_V.max(initial=0.0)))
    named: dict[bool, dict[str, None]] = {True: {}, False: {}}
    for token in np.argsort(-size_V, kind="stable"):
        if (
            size_V[token] < bar
            or not size_V[token]
            or all(len(some) == words for some in named.values())
        ):
            break
        word = lexicon.words[lexicon.word_T2[token, 0]]
        some, other = named[bool(moved_V[token] > 0)], named[bool(moved_V[token] < 0)]
        # Of two tokens of one word the one that moves more decides.
        if len(some) < words and word not in other:
            some[word] = None
    return Effect(tuple(named[True]), tuple(named[False]))


def agreement(
    effects: Sequence[Effect], moved_IV: np.ndarray, lexicon: Lexicon
) -> tuple[np.ndarray, np.ndarray]:
    """Return how well sentences name what latents move, (I,), each its own and that of the others.

    The mean over directions of the area under the ROC curve; 0.5 where a sentence names no word.
    `moved_IV` is of text that the sentences were not made from. The second is the mean over the
    other latents' sentences, nan where there is no other.
    """
    word_V = lexicon.word_T2[:, 0]
    areas_DII = np.full((2, len(effects), len(effects)), np.nan)
    for area_II, sign, words in (
        (areas_DII[0], 1, [effect.raised for effect in effects]),
        (areas_DII[1], -1, [effect.lowered for effect in effects]),
    ):
        sets = [np.isin(word_V, [lexicon.id(word) for word in some]) for some in words]
        told = [at for at, some_V in enumerate(sets) if some_V.any()]
        if told:
            # By sentence, then by latent.
            area_II[told] = areas(sign * moved_IV, np.stack([sets[at] for at in told]))
    there_II = np.isfinite(areas_DII).sum(axis=0)
    score_II = np.nansum(areas_DII, axis=0) / np.maximum(there_II, 1)
    score_II = np.where(there_II > 0, score_II, 0.5)
    return score_II.diagonal().copy(), mean_of_others(score_II.T)


@dataclass
class Moves:
    """Sums over the positions at which some latents are ablated.

    Attributes:
        count_I: positions.
        moved_IV: by how much the latent raises the log-probability of each next token, nats.
        probability_IV: of each next token, without the ablation.
        divergence_I: the Kullback-Leibler divergence of the prediction with the ablation from that
            without, nats.
        cost_I, next_I: the rise in loss of the token that follows, nats, over the positions that
            have one; and their number.
    """

    count_I: np.ndarray
    moved_IV: np.ndarray
    probability_IV: np.ndarray
    divergence_I: np.ndarray
    cost_I: np.ndarray
    next_I: np.ndarray

    @classmethod
    def none(cls, latents: int, vocabulary: int) -> Moves:
        """Return sums over nothing."""
        tables = [np.zeros((latents, vocabulary)) for _ in range(2)]
        return cls(np.zeros(latents), *tables, *(np.zeros(latents) for _ in range(3)))

    def add(
        self,
        latent_P: np.ndarray,
        clean_PV: np.ndarray,
        ablated_PV: np.ndarray,
        target_P: np.ndarray,
    ) -> None:
        """Count positions, given the log-probabilities there.

        Args:
            latent_P: the number of the latent that is ablated.
            target_P: the token that follows; -1 where none does.
        """
        order_P = np.argsort(latent_P, kind="stable")
        latent_P, target_P = latent_P[order_P], target_P[order_P]
        latents, begins = np.unique(latent_P, return_index=True)
        clean_PV = clean_PV[order_P]
        probability_PV, moved_PV = np.exp(clean_PV), clean_PV - ablated_PV[order_P]
        has_next_P = target_P >= 0
        for sums, values in (
            (self.count_I, np.ones(len(latent_P))),
            (self.moved_IV, moved_PV),
            (self.probability_IV, probability_PV),
            (self.divergence_I, (probability_PV * moved_PV).sum(axis=1, dtype=np.float64)),
            (self.cost_I, moved_PV[np.arange(len(target_P)), target_P] * has_next_P),
            (self.next_I, has_next_P),
        ):
            sums[latents] += np.add.reduceat(values, begins, axis=0, dtype=np.float64)

    def split(self, first: int) -> tuple[Moves, Moves]:
        """Return the sums of the first latents, and of the rest."""
        parts = [(value[:first], value[first:]) for value in vars(self).values()]
        return Moves(*(part[0] for part in parts)), Moves(*(part[1] for part in parts))

    @property
    def mean_IV(self) -> np.ndarray:
        """The mean move of each token."""
        return self.moved_IV / np.maximum(self.count_I, 1)[:, None]

    @property
    def plausible_IV(self) -> np.ndarray:
        """The same, 0 of tokens that are hardly ever expected where the latent is active."""
        mean_IV = self.probability_IV / np.maximum(self.count_I, 1)[:, None]
        return np.where(mean_IV >= PLAUSIBLE, self.mean_IV, 0.0)
