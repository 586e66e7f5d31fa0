"""Read the latents of some rows of text into memory, as a cache on disk would hold them.

Shape suffixes: R rows, S positions, K active latents per token, E entries of a layer.
"""

from __future__ import annotations

import numpy as np
import torch

from clearnets.latents.readers import LatentReader, read_together
from clearnets.latents.store import LayerCache


def read_layers(
    reader: LatentReader, tokens_RS: np.ndarray, rows: np.ndarray, *, batch_size: int
) -> dict[str, LayerCache]:
    """Return by hookpoint what is active at all positions of some rows.

    Activations are rounded to float16, as in a cache on disk.

    Args:
        tokens_RS: rows of tokens.
        rows: numbers of those to read, ascending.
        batch_size: rows per forward pass.
    """
    found: dict[str, list[tuple[np.ndarray, ...]]] = {point: [] for point in reader.hookpoints}
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]

        def take(
            _: LatentReader,
            point: str,
            acts_BSK: torch.Tensor,
            latent_BSK: torch.Tensor,
            part: np.ndarray = part,
        ) -> None:
            half_BSK = acts_BSK.numpy(force=True).astype(np.float16)
            at = np.nonzero(half_BSK > 0)
            entries = latent_BSK.numpy(force=True)[at], part[at[0]], at[1], half_BSK[at]
            found[point].append(entries)

        read_together([reader], torch.from_numpy(tokens_RS[part].astype(np.int64)), take)
    return {
        point: _sorted(*map(np.concatenate, zip(*parts)), num_latents=reader.num_latents)
        for point, parts in found.items()
    }


def _sorted(
    latent_E: np.ndarray,
    row_E: np.ndarray,
    position_E: np.ndarray,
    act_E: np.ndarray,
    *,
    num_latents: int,
) -> LayerCache:
    order_E = np.argsort(latent_E, kind="stable")  # Rows and positions ascend already.
    counts_L = np.bincount(latent_E, minlength=num_latents)
    return LayerCache(
        num_latents,
        latent_E[order_E].astype(np.int32),
        row_E[order_E].astype(np.int32),
        position_E[order_E].astype(np.int32),
        act_E[order_E].astype(np.float32),
        np.concatenate([[0], np.cumsum(counts_L)]),
    )
