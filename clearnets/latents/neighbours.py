"""Find latents near a latent, and windows in which they are active while it is not.

Such windows are harder than random ones: something like the latent's own concept stands in them.

Shape suffixes: L latents, D dimensions of a weight, E entries of a cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import SafetensorError, safe_open

from clearnets import UserError
from clearnets.latents.examples import Activity, Grid, activity
from clearnets.latents.store import LayerCache
from clearnets.pipeline.artifacts import missing, remake

# Windows taken from one neighbour, the strongest first, before the next one has its turn; and
# neighbours that are asked at most. Both as in delphi.
PER_NEIGHBOUR = 10
MOST = 10


def jaccard(cache: LayerCache, latent: int, windows: Grid) -> np.ndarray:
    """Return the co-occurrence of `latent` with every latent, (L,).

    That is the number of tokens at which both are active over those at which either is. Uncounted
    positions do not count; 0 where neither is ever active.
    """
    counted_E = windows.counted_RS[cache.row, cache.position] & (cache.act > 0)
    own = cache.entries(latent)
    at_RS = np.zeros(windows.counted_RS.shape, dtype=bool)
    at_RS[cache.row[own], cache.position[own]] = counted_E[own]
    both_E = at_RS[cache.row, cache.position] & counted_E
    size = cache.num_latents
    both_L = np.bincount(cache.latent[both_E], minlength=size)
    count_L = np.bincount(cache.latent[counted_E], minlength=size)
    return both_L / np.maximum(count_L + count_L[latent] - both_L, 1)


def cosine(weight_LD: np.ndarray, latent: int) -> np.ndarray:
    """Return the cosine similarity of a latent's weights with those of every latent, (L,)."""
    norm_L = np.sqrt(np.einsum("ld,ld->l", weight_LD, weight_LD))
    dot_L = np.einsum("ld,d->l", weight_LD, weight_LD[latent])
    return dot_L / np.maximum(norm_L * norm_L[latent], np.finfo(weight_LD.dtype).tiny)


def nearest(similarity_L: np.ndarray, latent: int, count: int = MOST) -> np.ndarray:
    """Return the `count` latents nearest to a latent, the nearest first; of equal ones the first.

    The latent itself is left out, and so are those without similarity.
    """
    order_L = np.argsort(-similarity_L, kind="stable")
    return order_L[(order_L != latent) & (similarity_L[order_L] > 0)][:count]


def windows_near(
    cache: LayerCache, neighbours: np.ndarray, found: Activity, windows: Grid, count: int
) -> np.ndarray:
    """Draw up to `count` different windows in which a neighbour of a latent is active, not it.

    The neighbours have their turn in their order, each with at most `PER_NEIGHBOUR` windows, in
    which it is the most strongly active of those not taken yet.

    Args:
        found: where the latent is active.
    """
    taken: dict[int, None] = {}
    busy = set(found.active_A.tolist())
    for neighbour in neighbours.tolist():
        strongest = activity(cache, neighbour, windows).strongest_first.tolist()
        free = [window for window in strongest if window not in busy and window not in taken]
        taken.update(dict.fromkeys(free[:PER_NEIGHBOUR]))
        if len(taken) >= count:
            break
    return np.array(list(taken)[:count], dtype=np.int64)


def weights(folder: Path, side: Literal["encoder", "decoder"]) -> np.ndarray:
    """Return a coder's weights (L, D), float32, without torch.

    Args:
        folder: one coder in sparsify's format.
        side: what its latents read, or what they write.

    Raises:
        UserError: the coder is missing or unreadable.
    """
    path = folder / "sae.safetensors"
    if not path.exists():
        raise UserError(missing(path))
    try:
        with safe_open(path, framework="numpy") as file:
            name = {"encoder": "encoder.weight", "decoder": "W_dec"}[side]
            return file.get_tensor(name).astype(np.float32)
    except SafetensorError as error:
        raise UserError(f"{path} is not readable ({error}); {remake(path)}") from None
