"""Questions of the embedded corpus as tokens: pairs of prompts of equal length.

Shapes: P pairs, S positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from clearnets.data.storybook import tasks
from clearnets.data.tokens import TokenStore

_LIMIT = 50
"""At most so many times as many pairs are told as are wanted."""
_WORD = re.compile(r" ?[A-Za-z]+| ?[^A-Za-z ]+")


class _Told(NamedTuple):
    clean: list[int]
    corrupt: list[int]
    right: int
    wrong: int


class Prompts(NamedTuple):
    """The pairs of one task. Position i plays the same part in all of them.

    Attributes:
        tokens_2PS: the prompts, clean ones and then their counterparts; each begins with bos.
        right_2P: the first token of the right answer; the wrong one is the counterpart's.
    """

    tokens_2PS: np.ndarray
    right_2P: np.ndarray

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.tokens_2PS.shape[1]

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        return self.tokens_2PS.shape[2]

    @property
    def wrong_2P(self) -> np.ndarray:
        """The first token of the wrong answer."""
        return self.right_2P[::-1]


def open_prompts(store: TokenStore, task: str, count: int, seed: int) -> Prompts:
    """Return pairs of a task, cut by the tokenizer of the data."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(store.root / "tokenizer" / "tokenizer.json"))
    pairs = tasks.pairs(task, seed)
    return make(pairs, count, lambda text: tokenizer.encode(text).ids, store)


def make(
    pairs: Iterator[tasks.Pair], count: int, encode: Callable[[str], list[int]], store: TokenStore
) -> Prompts:
    """Return `count` pairs whose words the tokenizer cuts alike, so that positions agree.

    Fewer are returned where there are not so many among 50 times as many, or none that fit into a
    row.
    """
    tokens = cache(lambda word: tuple(encode(word)))
    shapes: dict[tuple[int, ...], dict[tuple[int, ...], _Told]] = {}
    for pair in islice(pairs, _LIMIT * count):
        clean, corrupt = ([tokens(word) for word in _WORD.findall(text)] for text in pair[:2])
        right, wrong = tokens(pair.right)[0], tokens(pair.wrong)[0]
        shape = tuple(map(len, clean))
        if right == wrong or shape != tuple(map(len, corrupt)) or sum(shape) >= store.ctx_len:
            continue
        one, other = ([store.bos, *chain.from_iterable(cut)] for cut in (clean, corrupt))
        alike = shapes.setdefault(shape, {})
        alike[*one, right] = _Told(one, other, right, wrong)
        if len(alike) == count:
            break
    if not shapes:
        return Prompts(np.zeros((2, 0, 0), int), np.zeros((2, 0), int))
    told = max(shapes.values(), key=len)
    clean, corrupt, right, wrong = (np.array(column) for column in zip(*told.values()))
    return Prompts(np.stack([clean, corrupt]), np.stack([right, wrong]))
