"""Pairs of prompts from the storybook."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pytest

from clearnets.data import prompts
from clearnets.data.storybook import tasks
from clearnets.data.tokens import TokenStore

STORE = TokenStore(Path(), vocab_size=0, ctx_len=128, pad=0, bos=1, eos=2, concepts=())


def encode(text: str) -> list[int]:
    """One token per word, a number that its letters give."""
    return [3 + int.from_bytes(text.encode().rjust(7, b"\0")[-7:], "big")]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_only_the_order_of_words_tells_the_answer(task):
    for pair in islice(tasks.pairs(task, 0), 60):
        assert pair.clean != pair.corrupt
        assert pair.right != pair.wrong
        # Whoever only counts words says the same to both, and the right answers differ.
        words = [Counter(re.findall(r"\w+|[^\w ]", text)) for text in pair[:2]]
        assert words[0] == words[1]


@pytest.mark.parametrize("task", tasks.TASKS)
def test_there_are_three_hundred_pairs_of_equal_length(task):
    found = prompts.make(tasks.pairs(task, 0), 300, encode, STORE)
    assert found.pairs == 300
    assert np.array_equal(*np.sort(found.tokens_2PS))
    assert (found.right_2P != found.wrong_2P).all()
    assert (found.tokens_2PS[:, :, 0] == STORE.bos).all()


def test_pairs_are_a_function_of_seed_and_task():
    one, again, other = (list(islice(tasks.pairs("wear", seed), 5)) for seed in (0, 0, 1))
    assert one == again != other


def test_words_of_several_tokens_stand_at_the_same_positions():
    def letters(word: str) -> list[int]:
        return encode(word) * len(word)

    found = prompts.make(tasks.pairs("owner", 0), 4, letters, replace(STORE, ctx_len=1000))
    runs = {
        tuple(len(list(run)) for _, run in groupby(row))
        for side in found.tokens_2PS.tolist()
        for row in side
    }
    assert len(runs) == 1


def test_prompts_that_do_not_fit_into_a_row_are_left_out():
    found = prompts.make(tasks.pairs("owner", 0), 4, lambda word: [5] * 9, STORE)
    assert found.pairs == 0
