"""Texts of windows, and the windows of a pool that are nearest in meaning."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic_text import BOS, EOS, ID, PAD, STRINGS, counted, rows

from clearnets import UserError
from clearnets.latents import window_embeddings
from clearnets.latents.examples import windows_of
from clearnets.latents.window_embeddings import nearest, texts_of
from clearnets.pipeline import paths

SIZE = 16


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape)
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float16)


def test_the_text_of_a_window_is_that_of_its_tokens():
    tokens_RS = rows(0, 20)
    windows = windows_of(counted(tokens_RS), size=SIZE)
    texts = texts_of(windows, tokens_RS, STRINGS)
    assert len(texts) == len(windows)
    for text, row, slot in zip(texts, windows.row_N, windows.slot_N):
        tokens = tokens_RS[row, slot * SIZE : (slot + 1) * SIZE].tolist()
        special = (PAD, BOS, EOS)
        assert text == "".join(" " if t in special else STRINGS[t] for t in tokens)


def test_documents_that_share_a_window_are_apart():
    fox, dot, it = ID[" fox"], ID["."], ID["It"]
    tokens_RS = np.array([[BOS, fox, dot, EOS, it, fox, dot, EOS]])
    windows = windows_of(counted(tokens_RS), size=8)
    assert texts_of(windows, tokens_RS, STRINGS) == ["  fox. It fox. "]


def by_hand(vector_ND, wanted, pool, count) -> list[int]:
    """The wanted windows choose in turn, by a search through all that is free."""
    chosen: list[int] = []
    while wanted and len(chosen) < min(count, len(pool)):
        for w in wanted:
            free = [p for p in pool if p not in chosen]
            if free and len(chosen) < count:
                products = [float(vector_ND[p].astype(float) @ vector_ND[w]) for p in free]
                chosen.append(free[products.index(max(products))])
    return chosen


@pytest.mark.parametrize(
    ("wanted", "pool", "count"), [(4, 30, 10), (3, 5, 9), (7, 40, 3), (0, 9, 4)]
)
def test_nearest_equals_a_search_in_plain_python(wanted, pool, count):
    rng = np.random.default_rng(count)
    vector_ND = unit(rng, 60, 4)
    numbers = rng.permutation(60)
    wanted_W, pool_P = numbers[:wanted], numbers[wanted : wanted + pool]
    found = nearest(vector_ND, wanted_W, pool_P, count)
    assert found.tolist() == by_hand(vector_ND, wanted_W.tolist(), pool_P.tolist(), count)
    assert len(found) == (min(pool, count) if wanted else 0)


def test_what_clearnets_embed_wrote_is_read_again(tmp_path):
    vector_ND = unit(np.random.default_rng(0), 7, 5)
    window_embeddings.write(window_embeddings.place(tmp_path, "score"), vector_ND)
    np.testing.assert_array_equal(
        window_embeddings.read(tmp_path, "score"), vector_ND.astype(np.float32)
    )


def test_missing_and_damaged_embeddings_name_the_cure():
    cure = "run `dvc repro embed` first; `embed.splits` must hold explain"
    with pytest.raises(UserError, match=cure):
        window_embeddings.read(paths.embed(), "explain")
    path = window_embeddings.place(paths.embed(), "explain")
    window_embeddings.write(path, unit(np.random.default_rng(0), 7, 5))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="delete it and run `dvc repro embed`"):
        window_embeddings.read(paths.embed(), "explain")
