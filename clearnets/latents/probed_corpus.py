"""The concepts that probes look for, and what sets of tokens and of n-grams know of them.

A concept is *lexical* where a set of tokens predicts it, *local* where a set of two, three or four
consecutive tokens does, and *contextual* where neither does. It is *absent* where one of the splits
does not hold it.

Shape suffixes: R rows, S positions, C concepts, T counted tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clearnets.data.contexts import label_rows
from clearnets.data.storybook.context import CONTEXTS
from clearnets.data.tokens import TokenStore
from clearnets.latents.concepts import Labels, token_sets

TABLE, OWN = "probes.csv", "own"
"""Of `clearnets probes`: its table, and the source of probes on the latents of a family itself."""
LEXICAL, LOCAL, CONTEXTUAL, ABSENT = "lexical", "local", "contextual", "absent"
LONGEST = 4


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        tokens_RS: its tokens.
        counted_RS: positions that count.
        labels: label masks (R, S) and how many concepts each holds, one behind the other.
    """

    tokens_RS: NDArray
    counted_RS: NDArray[np.bool_]
    labels: Sequence[tuple[NDArray[np.uint64], int]]

    @property
    def truth_CT(self) -> NDArray[np.float64]:
        """Which counted tokens are of which concept."""
        return np.array(
            [
                label_RS[self.counted_RS] >> np.uint64(bit) & np.uint64(1)
                for label_RS, count in self.labels
                for bit in range(count)
            ],
            dtype=np.float64,
        )

    def of_rows(self, rows: NDArray) -> Split:
        """Return some rows of the split."""
        labels = [(label_RS[rows], count) for label_RS, count in self.labels]
        return Split(self.tokens_RS[rows], self.counted_RS[rows], labels)


def concept_names(store: TokenStore) -> tuple[str, ...]:
    """Return the concepts of the corpus, those of single tokens first."""
    return (*store.concepts, *CONTEXTS)


def open_split(store: TokenStore, name: str, *, seed: int) -> Split:
    """Return a split of the corpus whose stories have this seed, with the labels of all its
    concepts."""
    tokens_RS = np.asarray(store.split(name))
    labels = [(np.asarray(store.labels(name)), len(store.concepts))]
    labels.append((label_rows(store, name, seed=seed), len(CONTEXTS)))
    return Split(tokens_RS, store.counted(tokens_RS), labels)


@dataclass(frozen=True)
class Known:
    """A concept without any latent.

    Attributes:
        name: of it.
        kind: see above.
        positives_fit, positives_test: its counted tokens.
        token_set_f1, ngram_f1: F1 on `concept_test` of the best set of tokens and of n-grams, each
            chosen on `concept_fit`; the best n is the one of the largest F1 there.
    """

    name: str
    kind: str
    positives_fit: int
    positives_test: int
    token_set_f1: float
    ngram_f1: float


def known(names: Sequence[str], fit: Split, test: Split, *, lexical: float) -> list[Known]:
    """Return what is known of each concept; `lexical` is the F1 from which a set predicts it."""
    by_length = {n: _sets(fit, test, n) for n in range(1, LONGEST + 1)}
    positives = [split.truth_CT.sum(axis=1).astype(int) for split in (fit, test)]
    found = []
    for number, name in enumerate(names):
        in_fit, in_test = (int(each[number]) for each in positives)
        alone = by_length[1][number][1]
        longer = max((by_length[n][number] for n in range(2, LONGEST + 1)), key=lambda one: one[0])
        kind = CONTEXTUAL
        if not (in_fit and in_test):
            kind = ABSENT
        elif alone >= lexical:
            kind = LEXICAL
        elif longer[1] >= lexical:
            kind = LOCAL
        found.append(Known(name, kind, in_fit, in_test, alone, longer[1]))
    return found


def _sets(fit: Split, test: Split, length: int) -> list[tuple[float, float]]:
    """Return F1 on both splits of the best set of n-grams that end at a token, for each concept."""
    grams = np.concatenate([_grams(split.tokens_RS, length).ravel() for split in (fit, test)])
    _, number = np.unique(grams, return_inverse=True)
    first, second = np.split(number, [fit.tokens_RS.size])
    found = []
    for (fit_RS, count), (test_RS, _) in zip(fit.labels, test.labels, strict=True):
        sets = token_sets(
            Labels.of(fit_RS, fit.counted_RS, count),
            first.reshape(fit.tokens_RS.shape),
            Labels.of(test_RS, test.counted_RS, count),
            second.reshape(test.tokens_RS.shape),
        )
        found += [(one.fit, one.test) for one in sets]
    return found


def _grams(tokens_RS: NDArray, length: int) -> NDArray[np.uint64]:
    """Return a number for the tokens up to each position; those before a row's begin are alike."""
    gram_RS = np.zeros(tokens_RS.shape, np.uint64)
    for back in range(length):
        shifted_RS = np.pad(tokens_RS.astype(np.uint64) + np.uint64(1), ((0, 0), (back, 0)))
        part_RS = shifted_RS[:, : tokens_RS.shape[1]]
        # Knuth's multiplier (MMIX), modulo 2^64.
        gram_RS = gram_RS * np.uint64(6364136223846793005) + part_RS
    return gram_RS


def columns(one: Known) -> Mapping[str, object]:
    """Return what is known of a concept, as columns of a table."""
    return {"concept": one.name, **{k: v for k, v in vars(one).items() if k != "name"}}
