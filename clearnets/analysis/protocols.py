"""The table of protocols: how much scores rise on windows that the explainer has seen.

The same latents, with the same explanations, under three protocols (see
`clearnets.autointerp.protocols`), so all differences are within latents and so are their intervals.

| table | one row per |
|---|---|
| protocols | family, scorer, and bin of firing rate or all of them; all seeds |
"""

from __future__ import annotations

from itertools import product
from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of, ordered, pick
from clearnets.analysis.means import BINS_PER_DECADE
from clearnets.analysis.samples import bootstrap, interval
from clearnets.analysis.sources import SCORERS
from clearnets.autointerp.records import UNSCORABLE
from clearnets.config import Config

# What a difference is made of: what the explainer had seen, and the text.
DIFFERENCES = {
    "overlap": ("delphi", "disjoint"),
    "text": ("disjoint", "held-out"),
    "both": ("delphi", "held-out"),
}
MEANS = {"delphi": "delphi", "disjoint": "disjoint", "held_out": "held-out"}
COLUMNS = (
    *("family", "scorer", "rate_low", "rate_high", "n", "drawn", "too_few", "positives", "seen"),
    *MEANS,
    *(f"{name}{end}" for name in DIFFERENCES for end in ("", "_low", "_high")),
    "confidence",
)


def protocol_table(overlap: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return `protocols`, from what `clearnets overlap` measured."""
    rows = [
        row
        for family, scorer in product(ordered(config.families), SCORERS)
        for row in _rows(pick(overlap, family=family), family, scorer, config)
    ]
    return columns_of(pd.DataFrame(rows), COLUMNS)


def _rows(own: pd.DataFrame, family: str, scorer: str, config: Config) -> list[dict[str, Any]]:
    """Return a row for all latents of a family, and one per bin of firing rate with `min_stratum`
    latents.

    `n` of the `drawn` latents are compared; `too_few` could be explained, but have too few windows
    for one of the draws, unseen ones for example. Both are empty for a bin. `seen`: share of the
    `positives`, the active windows of `delphi`, that the explainer had seen.
    """
    keys = ["seed", "layer", "latent"]
    drawn = len(own[keys].drop_duplicates())
    too_few = int(np.sum(own["status"].to_numpy() == UNSCORABLE))
    own = cast(pd.DataFrame, own[own["protocol"].notna()])
    if own.empty:
        return []
    wide = own.pivot(index=keys, columns="protocol", values=scorer)
    delphi = pick(own, protocol="delphi").set_index(keys).loc[wide.index]
    rate = delphi["rate"].to_numpy(np.float64)
    index = wide.index.to_frame()
    strata = stats.strata_ids(index["seed"].to_numpy(), index["layer"].to_numpy())
    bins = stats.rate_bin(rate, BINS_PER_DECADE)
    groups = [("all", np.ones(len(wide), dtype=bool), (np.nan, np.nan))]
    for number in np.unique(bins):
        edges = stats.bin_edges(int(number), BINS_PER_DECADE)
        groups.append((str(number), bins == number, edges))
    rows = []
    for name, inside, (low, high) in groups:
        part, there, whole = wide[inside], int(inside.sum()), name == "all"
        if not whole and there < config.collate.min_stratum:
            continue
        row: dict[str, Any] = {
            "family": family,
            "scorer": scorer,
            "rate_low": low,
            "rate_high": high,
            "n": there,
            "drawn": drawn if whole else np.nan,
            "too_few": too_few if whole else np.nan,
            "positives": delphi["positives"][inside].mean(),
            "seen": (delphi["seen"] / delphi["positives"])[inside].mean(),
        }
        row |= {column: part[protocol].mean() for column, protocol in MEANS.items()}
        for column, (first, second) in DIFFERENCES.items():
            difference = np.asarray(part[first] - part[second], dtype=np.float64)
            names = ("protocols", family, scorer, name, column)
            random = bootstrap(config.collate, *names)
            estimate = stats.mean_estimate(difference, strata[inside], **random)
            estimate = interval(estimate, config.collate, there)
            row |= estimate.columns(column, f"{column}_")
        rows.append(row | {"confidence": config.collate.confidence})
    return rows
