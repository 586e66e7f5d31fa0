"""Texts of windows and their embeddings, and windows whose embedding is near to given ones.

Reading and searching needs NumPy only, so that `explain` and `score` can take non-activating
windows that are similar in meaning to active ones without loading a model.

Shape suffixes: N windows of a split, L positions of a window, D dimensions of an embedding, W
wanted windows, P windows of a pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from clearnets import UserError
from clearnets.latents.examples import Windows
from clearnets.pipeline.artifacts import missing, remake, write_bytes

_TENSOR = "embeddings"


def texts_of(windows: Windows, tokens_RS: np.ndarray, strings: Sequence[str]) -> list[str]:
    """Return the text of each window, (N,). Special tokens are spaces: they part documents."""
    string_NL = np.array(strings, dtype=object)[windows.cut(tokens_RS)]
    string_NL[~windows.cut(windows.counted_RS)] = " "
    return ["".join(string_L) for string_L in string_NL]


def place(folder: Path, split: str) -> Path:
    """Return the file with the embeddings of a split. `folder` is `paths.embed()`."""
    return folder / f"{split}.safetensors"


def write(path: Path, vector_ND: np.ndarray) -> None:
    """Keep the embeddings of all windows of a split."""
    write_bytes(path, save({_TENSOR: np.ascontiguousarray(vector_ND)}))


def read(folder: Path, split: str) -> np.ndarray:
    """Return unit vectors (N, D) float32 of all windows of a split, in their order.

    Args:
        folder: `paths.embed()`.

    Raises:
        UserError: the split has not been embedded, or the file is damaged.
    """
    path = place(folder, split)
    if not path.exists():
        raise UserError(f"{missing(path)}; `embed.splits` must hold {split}")
    try:
        return load_file(path)[_TENSOR].astype(np.float32)
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} is not readable ({error}); {remake(path)}") from None


def nearest(
    vector_ND: np.ndarray, wanted_W: np.ndarray, pool_P: np.ndarray, count: int
) -> np.ndarray:
    """Return the `count` windows of the pool whose embeddings are nearest to the wanted ones'.

    The wanted windows choose in turn, in their order, each the most similar window of the pool
    that is still free, until there are enough: so no wanted window has more than one choice more
    than another.

    Args:
        vector_ND: unit vectors of all windows.
        wanted_W, pool_P: numbers of windows, each all different.

    Returns:
        Numbers of windows in the order in which they were chosen; none without a wanted window.
    """
    count = min(count, len(pool_P)) if len(wanted_W) else 0
    # In float64 the similarity of vectors in float16 is exact: no order of summation matters.
    pool_PD = vector_ND[pool_P].astype(np.float64)
    # At most `count` of the pool are taken, so nobody has to look further down its list.
    lists = [np.argsort(-(pool_PD @ vector_ND[w]), kind="stable")[:count] for w in wanted_W]
    queues = [iter(places.tolist()) for places in lists]
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        for queue in queues[: count - len(chosen)]:
            chosen[next(place for place in queue if place not in chosen)] = None
    return pool_P[list(chosen)]
