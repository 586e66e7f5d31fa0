"""Nearest latents of other families, by the cosine of their activations over the same text.

Families may read different models, whose directions have nothing in common, but all read the same
text: two latents are as near as the cosine of their activations over the counted tokens of a split.

Shape suffixes: P positions of the split, N latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from clearnets.latents.store import LayerCache


def columns(cache: LayerCache, latents: Sequence[int], counted_RS: np.ndarray) -> csr_array:
    """Return (P, N) the activations of some latents at the positions of a split, each column of
    unit length; zero for a latent that is never active."""
    spans = [np.arange(cache.offsets[i], cache.offsets[i + 1]) for i in latents]
    entry_E = np.concatenate([*spans, np.zeros(0, dtype=np.int64)])
    column_E = np.repeat(np.arange(len(latents)), [len(span) for span in spans])
    row_E, position_E = cache.row[entry_E], cache.position[entry_E]
    act_E = np.where(counted_RS[row_E, position_E], cache.act[entry_E], 0).astype(np.float32)
    square_N = np.bincount(column_E, act_E.astype(np.float64) ** 2, minlength=len(latents))
    act_E /= np.maximum(np.sqrt(square_N), np.finfo(np.float32).tiny).astype(np.float32)[column_E]
    at_E = row_E.astype(np.int64) * counted_RS.shape[1] + position_E
    return csr_array((act_E, (at_E, column_E)), shape=(counted_RS.size, len(latents)))


@dataclass(frozen=True)
class Nearest:
    """For each latent of one set which latent of the other is nearest, and the cosine. Of equal
    ones the first; the cosine is 0 where none is ever active at the same token."""

    best_N: np.ndarray
    cosine_N: np.ndarray


def nearest(one: csr_array, other: csr_array) -> tuple[Nearest, Nearest]:
    """Return the nearest latents as seen from each of two sets, both as `columns` gives them."""
    cosine_NN = (one.T.tocsr() @ other).toarray()
    return _best(cosine_NN), _best(cosine_NN.T)


def _best(cosine_NN: np.ndarray) -> Nearest:
    best_N = cosine_NN.argmax(axis=1)
    return Nearest(best_N, np.take_along_axis(cosine_NN, best_N[:, None], 1)[:, 0])
