"""The summary's table of interventions on single latents."""

from __future__ import annotations

import pandas as pd

from clearnets.analysis.frames import pick, records
from clearnets.analysis.text import interval, number, table


def intervention_tables(found: pd.DataFrame) -> list[str]:
    """Return per family what lies on target when latents of concepts are ablated, where the corpus
    has any, and what steering with explained latents moves."""
    aims, steered = [], []
    for family in found["family"].unique():
        own = {row["measure"]: row for row in records(pick(found, family=family, kind="all"))}
        if "share" in own:
            cells = [number(own[name]["mean"], ".3f") for name in ("inside", "outside")]
            cells.append(interval(own["share"], "mean"))
            others = ("share_others", "share_tokens", "own")
            cells += [number(own[name]["mean"], ".2f") for name in others]
            aims.append([str(family), str(own["share"]["n"]), *cells])
        cells = [interval(own["steer_auroc"], "mean")]
        others = ("steer_auroc_shuffled", "random_auroc")
        cells += [number(own[name]["mean"], ".2f") for name in others]
        cells.append(number(own["strength"]["mean"], ".1f"))
        steered.append([str(family), str(own["steer_auroc"]["n"]), *cells])
    head = ["steering: family", "latents", "sentence names what moves (AUROC)"]
    head += ["others' sentences", "random direction", "strength in mean activations"]
    made = [table(head, steered)]
    if aims:
        head = ["ablation on target: family", "concepts", "nats at the concept's tokens"]
        head += ["at others", "share at the concept's tokens", "of other concepts' latents"]
        head += ["share of tokens", "moves its own concept most"]
        made.insert(0, table(head, aims))
    return made
