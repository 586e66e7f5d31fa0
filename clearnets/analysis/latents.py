"""Tables of every sampled latent: status, activity and scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis.frames import columns_of, sort
from clearnets.analysis.sources import SCORERS, Sources
from clearnets.autointerp.records import EXPLAINED, STATUSES
from clearnets.families import FAMILIES, NO_LAYER


def latent_table(sources: Sources, layers: pd.DataFrame) -> pd.DataFrame:
    """Return sampled latents with their scores, and `matters`: whether the layer they read
    counts."""
    models = layers[layers.kind == "model"]
    keys = zip(models["name"], models["seed"], models["layer"])
    matters = dict(zip(keys, models["matters"]))
    table = sort(sources.scores, ["family", "seed", "layer", "latent"])
    for scorer in SCORERS:
        scored = np.isfinite(table[scorer].to_numpy(np.float64))
        # None at all where only a language model judges.
        assert (scored == (scored.any() & (table["status"] == EXPLAINED).to_numpy())).all()
    reads = zip(table["family"], table["seed"], table["layer"])
    flags = [
        layer == NO_LAYER or bool(matters[FAMILIES[family].model, seed, layer])
        for family, seed, layer in reads
    ]
    return table.assign(matters=flags)


def coverage_table(latents: pd.DataFrame) -> pd.DataFrame:
    """Return how many latents were drawn per family, seed and layer, and how many have each
    status."""
    keys = ["family", "seed", "layer"]
    counts = columns_of(latents, keys).assign(drawn=1)
    for status in STATUSES:
        counts[status] = (latents["status"] == status).astype(int)
    table: Any = counts.groupby(keys, as_index=False).sum()
    assert (table[list(STATUSES)].sum(axis=1) == table["drawn"]).all()
    return sort(table, keys)
