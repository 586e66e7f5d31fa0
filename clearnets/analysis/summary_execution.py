"""The summary's table of executed explanations, and how to read it."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from clearnets.analysis.execution import LATER, TOGETHER
from clearnets.analysis.frames import pick, records
from clearnets.analysis.text import DASH, interval, number, several, table
from clearnets.autointerp.execution import STAND_INS

SHOWN = ("exact", *STAND_INS)


def execution_table(execution: pd.DataFrame, latents: pd.DataFrame) -> str:
    """Return per family what is left of the model that runs on its explanations; means over
    training seeds, intervals where there is one."""
    rows = []
    for family in execution["family"].unique():
        own = pick(execution, family=family)
        single: Any = pick(latents, family=family, layer=TOGETHER).mean(numeric_only=True)
        whole: Any = pick(own, layer=TOGETHER).groupby("stand_in")["nats"].mean()
        rows.append(
            [
                str(family),
                number(single["explained"] / single["latents"], ".2f"),
                number(single["r2"], ".2f"),
                *(_kept(pick(own, layer=place, stand_in="rules")) for place in (TOGETHER, LATER)),
                *(number(whole.get(name, math.nan), ".2f") for name in SHOWN),
            ]
        )
    head = ["executed: family", "explained", "R²", "share kept, all layers", "later layers summed"]
    return table([*head, *(f"nats: {name}" for name in SHOWN)], rows)


def _kept(rules: pd.DataFrame) -> str:
    """Return the share kept: with its interval, or the mean and the values of several seeds."""
    rows = records(rules)
    if len(rows) == 1:
        return interval(rows[0], "kept")
    values = [row["kept"] for row in rows]
    each = several(values, ".2f")
    return DASH if each == DASH else f"{number(sum(values) / len(values), '.2f')} ({each})"


def execution_note(execution: pd.DataFrame) -> str:
    """Return how to read the table."""
    first = execution.iloc[0]
    return (
        "Executed: every latent of every layer is simulated from its sentence (its mean activation "
        "where that fires and where it does not, fitted on the text that was explained), and the "
        f"model runs on that, on {first['tokens']:,.0f} held-out tokens of "
        f"{first['documents']:,} documents. Share kept: 1 − KL(exact latents, simulated ones) / "
        "KL(exact latents, latents at their mean), all layers at once, and divergences of each "
        "layer alone summed over all but the first; intervals are over documents. R²: of single "
        "latents, weighted by what they write. Nats: above the model as it is, all layers at once, "
        "with what stands in for the latents: the exact ones; true bits with mean values; all "
        "rules of a layer mapped to its output jointly; each latent's rule; the same with how "
        "strongly it is active by the word at which the rule fires; its most frequent word; its "
        "mean by token; the output's mean by token; another latent's rule; its mean."
    )
