"""Questions of the embedded corpus as tokens: pairs of prompts of equal length.

Shapes: P pairs, S positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clearnets.data.storybook import tasks

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
    def wrong_2P(self) -> np.ndarray:
        """The first token of the wrong answer."""
        return self.right_2P[::-1]


def open_prompts(root: Path, bos: int, task: str, count: int, seed: int) -> Prompts:
    """Return pairs of a task, as the tokenizer of the data unit at `root` reads them."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(root / "tokenizer" / "tokenizer.json"))
    return make(lambda text: tokenizer.encode(text, add_special_tokens=False).ids, bos, task, count, seed)


def make(
    encode: Callable[[str], list[int]], bos: int, task: str, count: int, seed: int
) -> Prompts:
    """Return `count` pairs of a task whose words the tokenizer cuts alike, so that positions agree.

    Fewer are returned where there are not so many among 50 times as many.
    """
    tokens = cache(lambda word: tuple(encode(word)))
    shapes: dict[tuple[int, ...], dict[tuple[int, ...], _Told]] = {}
    for pair in islice(tasks.pairs(task, seed), _LIMIT * count):
        clean, corrupt = ([tokens(word) for word in _WORD.findall(text)] for text in pair[:2])
        right, wrong = tokens(pair.right)[0], tokens(pair.wrong)[0]
        shape = tuple(map(len, clean))
        if right == wrong or shape != tuple(map(len, corrupt)):
            continue
        one, other = ([bos, *chain.from_iterable(cut)] for cut in (clean, corrupt))
        alike = shapes.setdefault(shape, {})
        alike[*one, right] = _Told(one, other, right, wrong)
        if len(alike) == count:
            break
    told = max(shapes.values(), key=len)
    clean, corrupt, right, wrong = (np.array(column) for column in zip(*told.values()))
    return Prompts(np.stack([clean, corrupt]), np.stack([right, wrong]))
