"""Read a latent cache without torch.

A cache unit holds, per hookpoint, one safetensors file for each range of latents (delphi's
layout): `locations` (E, 3) with row, position and latent counted from the file's first latent,
sorted by (latent, row, position); `activations` (E,) float16, all above zero; and `tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from clearnets import UserError
from clearnets.pipeline.artifacts import check, read_json, remake

STATS = "stats.json"


@dataclass(frozen=True)
class LayerCache:
    """All active entries of one hookpoint on one split, sorted by (latent, row, position).

    Attributes:
        num_latents: latents of the hookpoint, those that are never active included.
        latent, row, position: (E,) int32.
        act: (E,) float32, above zero.
        offsets: (num_latents + 1,) int64; latent i has entries offsets[i] to offsets[i + 1].
    """

    num_latents: int
    latent: np.ndarray
    row: np.ndarray
    position: np.ndarray
    act: np.ndarray
    offsets: np.ndarray

    def entries(self, latent: int) -> slice:
        """Return where the entries of one latent lie."""
        return slice(int(self.offsets[latent]), int(self.offsets[latent + 1]))


def ranges(num_latents: int, splits: int) -> Iterator[tuple[int, int]]:
    """Return first and last latent of each file, as delphi cuts them; no range is empty."""
    bounds = [num_latents * i // splits for i in range(splits + 1)]
    for first, end in pairwise(bounds):
        if first < end:
            yield first, end - 1


def load_layer(unit: Path, hookpoint: str) -> LayerCache:
    """Return the cached activations of one hookpoint.

    Args:
        unit: a cache unit, `paths.cache(family, seed, split)`.
        hookpoint: for example `layers.3.mlp`, or `tokens` for token-unigram.

    Raises:
        UserError: the cache is missing, truncated or unreadable; it names the stage to run.
    """
    check(unit)
    folder = unit / hookpoint
    num_latents = int(read_json(folder / "config.json")["num_latents"])
    files = sorted(folder.glob("*.safetensors"), key=_first)
    parts = [_load(path) for path in files]
    latent_E = np.concatenate([locations[:, 2] for locations, _ in parts])
    counts_L = np.bincount(latent_E, minlength=num_latents)
    return LayerCache(
        num_latents=num_latents,
        latent=latent_E,
        row=np.concatenate([locations[:, 0] for locations, _ in parts]),
        position=np.concatenate([locations[:, 1] for locations, _ in parts]),
        act=np.concatenate([activations for _, activations in parts]),
        offsets=np.concatenate([[0], np.cumsum(counts_L)]),
    )


def _first(path: Path) -> int:
    return int(path.stem.partition("_")[0])


def _load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            locations_E3 = file.get_tensor("locations").astype(np.int32)
            act_E = file.get_tensor("activations").astype(np.float32)
    except SafetensorError as error:
        raise UserError(f"{path} is not readable ({error}); {remake(path)}") from None
    locations_E3[:, 2] += _first(path)
    return locations_E3, act_E
