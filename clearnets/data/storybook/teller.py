"""The teller of a story: draws random choices, fills templates and collects labelled words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from random import Random
from typing import Protocol, TypeVar

from clearnets.data.storybook.lexicon import ALL_CONCEPTS, TIGHT, Token, bits
from clearnets.data.storybook.templates import MORALS, Phrases, Template

T = TypeVar("T")

NUM_STYLES = 12
STYLE_LOYALTY = 0.85
"""How often a story words a sentence the way its style does."""
HELD_OUT_SHARE = 0.15
"""In the test splits: share of sentences worded, and of stories plotted, as nowhere else."""

TARGET_SIZE = 80
"""Questions are added at the end until a story has this many words and marks."""
MORAL_ROOM = 98
"""A longer story has no moral, so that all fit in 118."""

_STATE = bits("requires_state")
_ARTICLES = frozenset(("a", "an", "the"))


class Value(Protocol):
    """What can fill a slot."""

    def say(self, form: str, /) -> tuple[Token, ...]:
        """Return the words of a form; saying them can change the value ("seen before")."""
        ...


Query = tuple[str, Mapping[str, Value]]
"""A dialogue about the world at the end of a story, and the values of its slots."""


def query(dialogue: str, asker: Value, answerer: Value, **values: Value) -> Query:
    """Return the dialogue of that name between two characters."""
    return dialogue, {"p": asker, "q": answerer, **values}


class Teller:
    """One story in the making.

    Only `draw`, `choice` and `phrase` take from `random`, and each adds -log p to the story's nll.
    """

    __slots__ = ("bound", "nll", "phrases", "random", "style", "test", "tokens")

    def __init__(self, random: Random, *, test: bool) -> None:
        self.random = random
        self.test = test
        self.nll = 0.0
        self.tokens: list[Token] = []
        self.bound: dict[str, Value] = {}
        self.phrases: Mapping[str, Phrases] = {}
        self.style = 0

    def draw(self, probabilities: Sequence[float]) -> int:
        """Draw an index by its probability and add -log p (nats) to the story's nll."""
        r = self.random.random()
        last = len(probabilities) - 1
        for i, p in enumerate(probabilities):
            r -= p
            if r < 0.0 or i == last:
                self.nll -= math.log(p)
                return i
        raise AssertionError("nothing to draw from")

    def choice(self, options: Sequence[T]) -> T:
        """Draw one of the options, all equally likely."""
        n = len(options)
        self.nll += math.log(n)
        return options[int(self.random.random() * n)]

    def chance(self, p: float) -> bool:
        """Return True with probability p."""
        return self.draw((p, 1.0 - p)) == 0

    def sample(self, options: Sequence[T], n: int) -> list[T]:
        """Draw n different options in random order."""
        pool = list(options)
        taken = []
        for _ in range(n):
            pick = self.choice(range(len(pool)))
            taken.append(pool[pick])
            pool[pick] = pool[-1]
            pool.pop()
        return taken

    def phrase(self, phrases: Phrases) -> Template:
        """Draw a wording, mostly that of the story's style; test splits use held-out ones too."""
        held_out = phrases.held_out if self.test else ()
        share = HELD_OUT_SHARE if held_out else 0.0
        shared = phrases.shared
        n = len(shared)
        loyal = self.style % n
        r = self.random.random()
        if r < share:
            self.nll += math.log(len(held_out) / share)
            return held_out[int(r / share * len(held_out))]
        r = (r - share) / (1.0 - share)
        index = loyal if r < STYLE_LOYALTY else int((r - STYLE_LOYALTY) / (1 - STYLE_LOYALTY) * n)
        index = min(index, n - 1)
        p = (1.0 - STYLE_LOYALTY) / n + (STYLE_LOYALTY if index == loyal else 0.0)
        self.nll -= math.log(p * (1.0 - share))
        return shared[index]

    def bind(self, **values: Value) -> None:
        """Give values of the story the names by which templates call them."""
        self.bound.update(values)

    def tell(self, name: str, **values: Value) -> None:
        """Append a wording of the phrases of that name; its slots are filled from what is bound."""
        self.bound.update(values)
        self.append(self.phrase(self.phrases[name]))

    def append(self, template: Template) -> None:
        """Append a template's words."""
        bound = self.bound
        append = self.tokens.append
        for item in template:
            if isinstance(item, tuple):
                append(item)
                continue
            first = item.first
            for text, mask in bound[item.value].say(item.form):
                # An article follows from its noun, which is what the state decides.
                mask |= item.every if text not in _ARTICLES else item.every & ~_STATE
                if first is not None:
                    mask |= first
                    first = None
                    if item.capital:
                        text = text[0].upper() + text[1:]
                append((text, mask))

    @property
    def size(self) -> int:
        """Words and punctuation marks so far."""
        return len(self.tokens)

    def close(self, moral: str, queries: Sequence[Query] = ()) -> None:
        """End the story: while there is room, dialogues in random order, then a moral."""
        left = list(queries)
        while left and self.size <= TARGET_SIZE:
            dialogue, values = left.pop(self.choice(range(len(left))))
            self.tell(dialogue, **values)
        if self.size <= MORAL_ROOM:
            self.append(self.phrase(MORALS[moral]))

    def finish(self) -> tuple[str, list[tuple[int, int, int]]]:
        """Return the text and the span and labels of each token."""
        parts: list[str] = []
        spans: list[tuple[int, int, int]] = []
        at = 0
        for text, mask in self.tokens:
            if not mask & TIGHT and at:
                parts.append(" ")
                at += 1
            end = at + len(text)
            parts.append(text)
            spans.append((at, end, mask & ALL_CONCEPTS))
            at = end
        return "".join(parts), spans
