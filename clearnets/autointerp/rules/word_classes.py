"""Classes of words that stand in the same places, learned from a text.

Each frequent word is described by the words that stand directly before and after it, and words are
merged bottom-up by Ward's method on the Hellinger distances of these descriptions. That gives a
binary tree; a *class* is an inner node of it, the words below. It is named by two words, the most
frequent ones of its two branches: the class is then the smallest that holds both, so that names
are unique and any two frequent words have a class in common.

Coordinates are rounded to integers before they are multiplied, so that products are exact and the
tree is the same on every processor.

Shape suffixes: V words of the lexicon, F frequent words, N positions of a text, C coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from clearnets.autointerp.rules.language import Like
from clearnets.pipeline.artifacts import read_jsonl, write_jsonl

CLASSES = "classes.jsonl"
# Words that classes are learned of: at most so many, the most frequent ones, each so frequent.
MOST_WORDS = 2048
MIN_COUNT = 20
# Larger classes are left out: what they have in common can't be seen.
MOST_MEMBERS = 128
# Steps that a coordinate, at most 1, is rounded to.
_STEPS = 1000


@dataclass(frozen=True)
class WordClasses:
    """Classes of words, nested.

    Attributes:
        words: all that are in a class, so ordered that each class is a run of them.
        names: of each class.
        spans: first member of each class in `words`, and the end behind the last.
    """

    words: tuple[str, ...] = ()
    names: tuple[Like, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()

    @cached_property
    def number(self) -> dict[Like, int]:
        """The number of each class by its name, with either word first."""
        numbers = {name: i for i, name in enumerate(self.names)}
        return numbers | {Like(name.other, name.one): i for name, i in numbers.items()}

    def members(self, name: Like) -> tuple[str, ...]:
        """Return the words of a class; none where no class has the name."""
        number = self.number.get(name)
        return () if number is None else self.words[slice(*self.spans[number])]

    def write(self, path: Path) -> None:
        """Write a line per class, the members of its branches side by side; classes stand before
        those that they contain."""
        lines = [
            {"like": [name.one, name.other], "words": self.members(name)} for name in self.names
        ]
        write_jsonl(path, lines)

    @classmethod
    def load(cls, path: Path) -> WordClasses:
        """Read what `write` wrote.

        Raises:
            UserError: the file is missing or unreadable.
        """
        place: dict[str, int] = {}
        names, spans = [], []
        for line in read_jsonl(path):
            if line["words"][0] not in place:  # Not within a class above.
                place |= {word: len(place) + i for i, word in enumerate(line["words"])}
            first = place[line["words"][0]]
            names.append(Like(*line["like"]))
            spans.append((first, first + len(line["words"])))
        return cls(tuple(place), tuple(names), tuple(spans))


NO_CLASSES = WordClasses()


def learn(word_RS: np.ndarray, words: tuple[str, ...]) -> WordClasses:
    """Learn classes from rows of text.

    Args:
        word_RS: the number of the word at each position, below zero where there is none.
        words: of each number.
    """
    word_N = word_RS.ravel()
    count_V = np.bincount(word_N[word_N >= 0], minlength=len(words))
    frequent_F = np.argsort(-count_V, kind="stable")[:MOST_WORDS]
    frequent_F = frequent_F[count_V[frequent_F] >= MIN_COUNT]
    if len(frequent_F) < 2:
        return NO_CLASSES
    number_V = np.full(len(words) + 1, len(frequent_F))
    number_V[frequent_F] = np.arange(len(frequent_F))
    tree = _tree(_descriptions(number_V[word_RS], len(frequent_F)))
    return _classes(tree, [words[word] for word in frequent_F])


def _descriptions(number_RS: np.ndarray, frequent: int) -> np.ndarray:
    """Return the square roots of the shares that each word has among the words before and after a
    frequent word, in integers, (F, C)."""
    others = np.full((len(number_RS), 1), frequent)
    padded_RS = np.concatenate([others, number_RS, others], axis=1)
    coordinates = []
    for neighbour_RS in (padded_RS[:, :-2], padded_RS[:, 2:]):
        key_N = (number_RS * (frequent + 1) + neighbour_RS).ravel()
        counts = np.bincount(key_N, minlength=(frequent + 1) ** 2)
        coordinates.append(counts.reshape(frequent + 1, -1)[:frequent])
    count_FC = np.concatenate(coordinates, axis=1).astype(np.float64)
    return np.rint(_STEPS * np.sqrt(count_FC / count_FC.sum(axis=1, keepdims=True)))


def _tree(value_FC: np.ndarray) -> np.ndarray:
    """Return the merges (F - 1, 2): numbers of words, or F plus the number of an earlier merge."""
    from scipy.cluster.hierarchy import linkage

    gram_FF = value_FC @ value_FC.T
    square_F = gram_FF.diagonal()
    square_FF = square_F[:, None] + square_F - 2 * gram_FF
    pair = np.triu_indices(len(gram_FF), 1)
    return linkage(np.sqrt(square_FF[pair]), method="ward")[:, :2].astype(int)


def _classes(merges: np.ndarray, words: list[str]) -> WordClasses:
    """Return the nodes of a tree as classes; words are given by falling frequency."""
    members = [[i] for i in range(len(words))]
    for pair in merges:
        # The branch with the more frequent word first.
        one, other = sorted((members[node] for node in pair), key=min)
        members.append(one + other)
    names, spans = [], []

    def add(node: int, first: int) -> None:
        if node < len(words):
            return
        one, other = sorted(merges[node - len(words)], key=lambda branch: min(members[branch]))
        size = len(members[node])
        if size <= MOST_MEMBERS:
            names.append(Like(words[min(members[one])], words[min(members[other])]))
            spans.append((first, first + size))
        stack.extend([(other, first + len(members[one])), (one, first)])

    stack = [(len(members) - 1, 0)]
    while stack:
        add(*stack.pop())
    return WordClasses(tuple(words[i] for i in members[-1]), tuple(names), tuple(spans))
