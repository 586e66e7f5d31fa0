"""The summary's table of counterparts in other runs."""

from __future__ import annotations

import math

import pandas as pd

from clearnets.analysis.frames import pick, records
from clearnets.analysis.stability import ALL
from clearnets.analysis.text import Row, difference, interval, number, several, table

MEASURES = ("rule-detection", "concept F1", "divergence")


def stability_table(levels: pd.DataFrame, relations: pd.DataFrame) -> str:
    """Return per family and what differs how far its live latents have counterparts, and what
    stability goes with at equal firing rate."""
    none: Row = dict.fromkeys(
        ("at_equal_rate", "at_equal_rate_low", "at_equal_rate_high"), math.nan
    )
    lines, there = [], [name for name in MEASURES if name in set(relations["measure"])]
    for row in records(pick(levels, layer=ALL)):
        own = pick(relations, family=row["family"], differs=row["differs"])
        by_measure = {one["measure"]: one for one in records(own)}
        lines.append(
            [
                f"{row['family']}, other {row['differs']}",
                f"{row['n']:,}",
                interval(row, "correlation"),
                several([row["null_correlation"], row["untrained_correlation"]], ".2f"),
                interval(row, "shared"),
                several([row["null_shared"], row["untrained_shared"]], ".2f"),
                number(row["decoder_cosine"], ".2f"),
                *(difference(by_measure.get(name, none), "at_equal_rate") for name in there),
            ]
        )
    head = ["stability: family", "live latents", "correlation with counterpart"]
    head += ["in another layer / of the untrained twin", "shared"]
    head += ["in another layer / of the untrained twin", "cosine of decoders"]
    return table([*head, *(f"goes with {name}" for name in there)], lines)
