"""Scores by a language model: apart from all others, and by whether it has qualified."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from clearnets.config import Config
from clearnets.tables.frames import sort
from clearnets.tables.sources import Sources


def tables(
    sources: Sources, config: Config, made: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """`judged` and `demonstration`, where a language model judges and so far as they have rows."""
    if sources.judged is None:
        return {}
    table = sort(sources.judged, ["family", "seed", "layer", "latent"])
    tables = {}
    for name, which in (("judged", False), ("demonstration", True)):
        own = table[table["demonstration"] == which]
        if len(own):
            tables[name] = own.drop(columns="demonstration")
    return tables
