"""The judge of rules: it executes a rule on windows that the explainer never saw.

*rule-detection*: is the latent active in this window? The judge says yes where the rule fires at
one counted position or more.

*rule-fuzzing*: are the marked positions of this window those at which the latent is active? The
judge says yes where the rule fires at half of them or more. In a positive item (an active window)
the active positions are marked: all of them, or a random quarter of the window where there are
more. In a negative item positions are marked at which the latent is silent, as many as in a
positive item, so that the number of marks tells nothing. Negatives are as many as the silent
windows of the sample and come in equal shares
- from the silent windows that hold the latent's trigger word, marked on the trigger first;
- from other windows, half of them silent and half of them active (a rule must say where in a
  window a latent is active, too), marked at random.

Shape suffixes: W windows, L positions, B machine words of a window's bits (see `reading`), P
positive and Q negative items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clearnets.autointerp.reading import NEAR, Text, count, fires, pack
from clearnets.autointerp.rules import Rule
from clearnets.latents.examples import Examples


@dataclass(frozen=True)
class Counts:
    """Answers of the judge against the truth."""

    tp: int
    fp: int
    tn: int
    fn: int

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the shares of positives and of negatives that are judged right."""
        return (self.tp / (self.tp + self.fn) + self.tn / (self.tn + self.fp)) / 2

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.tp + other.tp, self.fp + other.fp, self.tn + other.tn, self.fn + other.fn
        )


NONE = Counts(0, 0, 0, 0)


def _counts(yes_of_positives: np.ndarray, yes_of_negatives: np.ndarray) -> Counts:
    tp, fp = int(yes_of_positives.sum()), int(yes_of_negatives.sum())
    return Counts(tp, fp, len(yes_of_negatives) - fp, len(yes_of_positives) - tp)


@dataclass(frozen=True)
class Marks:
    """The items of rule-fuzzing.

    Attributes:
        positive_P, negative_Q: which window of the examples each item shows.
        marked_PL, marked_QL: the marked positions.
    """

    positive_P: np.ndarray
    marked_PL: np.ndarray
    negative_Q: np.ndarray
    marked_QL: np.ndarray


def mark(text: Text, examples: Examples, *, trigger: str, rng: np.random.Generator) -> Marks:
    """Mark positions for rule-fuzzing as the module's text says."""
    size = examples.active_WL.shape[1]
    word_WL = text.word_NM[examples.window_W, NEAR:]
    most = max(size // 4, 1)
    positive_P = np.arange(examples.num_active)
    key_PL = np.where(examples.active_WL[positive_P], rng.random((len(positive_P), size)), np.inf)
    marked_PL = _lowest(key_PL, np.minimum(examples.active_WL[positive_P].sum(axis=1), most))

    free_WL = (word_WL >= 0) & ~examples.active_WL
    silent_W = np.arange(examples.num_active, len(examples.window_W))
    hard_Q = silent_W[examples.hard_W[silent_W]]
    easy_Q = silent_W[~examples.hard_W[silent_W]]
    # An active window takes the place of a silent one, where it has room for every mark.
    roomy = positive_P[free_WL[positive_P].sum(axis=1) >= most]
    swapped = rng.permutation(roomy)[: len(easy_Q) // 2]
    kept = np.sort(rng.permutation(easy_Q)[: len(easy_Q) - len(swapped)])
    negative_Q = np.concatenate([hard_Q, kept, np.sort(swapped)])

    # The same numbers of marks as the positives have, dealt out anew.
    marks_P = marked_PL.sum(axis=1)
    rounds = -(-len(negative_Q) // len(marks_P))
    dealt = np.concatenate([rng.permutation(marks_P) for _ in range(rounds)])
    marks_Q = rng.permutation(dealt[: len(negative_Q)])
    key_QL = np.where(free_WL[negative_Q], rng.random((len(negative_Q), size)), np.inf)
    on_trigger_QL = word_WL[negative_Q] == text.lexicon.id(trigger)
    key_QL[: len(hard_Q)] -= on_trigger_QL[: len(hard_Q)]
    return Marks(positive_P, marked_PL, negative_Q, _lowest(key_QL, marks_Q))


def _lowest(key_xL: np.ndarray, number_x: np.ndarray) -> np.ndarray:
    """Which positions hold the `number_x` lowest keys of each row, infinite ones left out."""
    rank_xL = key_xL.argsort(axis=1).argsort(axis=1)
    return (rank_xL < number_x[:, None]) & np.isfinite(key_xL)


def detection(text: Text, examples: Examples, rule: Rule) -> Counts:
    """Counts of rule-detection."""
    fires_W = fires(text.fires(rule, examples.window_W))
    return _counts(fires_W[: examples.num_active], fires_W[examples.num_active :])


def fuzzing(text: Text, examples: Examples, marks: Marks, rule: Rule) -> Counts:
    """Counts of rule-fuzzing."""
    fired_WB = text.fires(rule, examples.window_W)

    def yes(item_x: np.ndarray, marked_xL: np.ndarray) -> np.ndarray:
        return 2 * count(fired_WB[item_x] & pack(marked_xL)) >= marked_xL.sum(axis=1)

    return _counts(yes(marks.positive_P, marks.marked_PL), yes(marks.negative_Q, marks.marked_QL))
