"""The summary's table of linear probes."""

from __future__ import annotations

import math

import pandas as pd

from clearnets.analysis.frames import pick, records
from clearnets.analysis.probes import DENSE, KINDS
from clearnets.analysis.text import interval, number, several, table

SIZES = ("1", "5", "16")


def probe_table(summary: pd.DataFrame) -> str:
    """Return per family and kind of concept the mean F1 of probes, between floor and ceiling."""
    lines = []
    for family in dict.fromkeys(summary["family"]):
        for kind in KINDS:
            own = {row["probe"]: row for row in records(pick(summary, family=family, kind=kind))}
            if "5" not in own:
                continue
            five, dense = own["5"], own.get(DENSE, {"f1": math.nan, "auroc": math.nan})
            cells = [interval(own[size], "f1") for size in SIZES if size in own]
            floors = [five["untrained_f1"], five["null_f1"]]
            cells += [number(dense["f1"], ".2f"), several(floors, ".2f")]
            cells += [number(five["trivial_f1"], ".2f")]
            cells += [several([five["auroc"], dense["auroc"]], ".2f")]
            lines.append([f"{family}, {five['concepts']} {kind}", *cells])
    head = [
        "probes: family, concepts",
        *(f"F1, latents: {size}" for size in SIZES),
        "all dimensions",
    ]
    head += ["5 latents of the untrained twin / null", "sets of tokens or n-grams"]
    return table([*head, "AUROC, 5 latents / all dimensions"], lines)
