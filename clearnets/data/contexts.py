"""Label the rows of a split of the storybook by what its stories have told, from their generator.

Shapes: R rows of a split, S positions.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from clearnets import UserError
from clearnets.data.packing import pack_single
from clearnets.data.storybook import context
from clearnets.data.tokenizer import Specials, Vocabulary
from clearnets.data.tokens import TokenStore
from clearnets.pipeline.artifacts import read_json, remake

_CHUNK = 128


def label_rows(store: TokenStore, split: str, *, seed: int) -> np.ndarray:
    """Return the contextual labels of a split's rows, (R, S) uint64; bit i is `CONTEXTS[i]`.

    The stories are told again. Those that the split left out, because they repeat or share text
    with another split, are passed over.

    Args:
        store: the tokens of the storybook.
        split: one that holds a document per row.
        seed: of the stories.

    Raises:
        UserError: the rows are not those of these stories.
    """
    rows_RS = np.asarray(store.split(split)).astype(np.uint32)
    label_RS, at = np.zeros(rows_RS.shape, np.uint64), 0
    vocabulary = _vocabulary(store)
    packed_with: Any = vocabulary.packed_with
    for start in itertools.count(0, _CHUNK):
        if at == len(rows_RS):
            return label_RS
        if start > 8 * len(rows_RS) + _CHUNK:
            path = store.root / "tokens" / f"{split}.npy"
            raise UserError(f"{path} does not hold the stories of seed {seed}; {remake(path)}")
        told = [context.story(seed, split, index) for index in range(start, start + _CHUNK)]
        docs = vocabulary.encode([one.text for one in told], spans=[one.spans for one in told])
        for number in range(len(docs)):
            alone = docs.select(np.arange(len(docs)) == number)
            packed_RS, labels_RS = pack_single(alone, ctx_len=store.ctx_len, **packed_with)
            end = at + len(packed_RS)
            if np.array_equal(rows_RS[at:end], packed_RS):
                assert labels_RS is not None
                label_RS[at:end], at = labels_RS, end
    raise AssertionError("the loop is left inside")


def _vocabulary(store: TokenStore) -> Vocabulary:
    from tokenizers import Tokenizer

    folder = store.root / "tokenizer"
    named = read_json(folder / "special_tokens_map.json")
    specials = Specials(*(named[f"{name}_token"] for name in Specials._fields))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return Vocabulary(tokenizer, specials, store.vocab_size, store.open_ended)
