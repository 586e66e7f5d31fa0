"""Distribution of rule-detection and rule-fuzzing by family within strata of firing rate."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import (
    ACCURACY,
    DOTS,
    GREY,
    LABEL,
    SCORERS,
    TWO_COLUMNS,
    control_keys,
    level,
    marker_style,
    pair_note,
    read,
    row_axes,
    rows_of,
    violin,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# A stratum is drawn where at least so many families have a mean in it: one alone compares nothing.
FAMILIES = 2


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where no stratum holds two families."""
    latents, rates, means = (read(tables, name) for name in ("latents", "rates", "means"))
    rates = rates[(rates["explanation"] == "own") & rates["scorer"].isin(SCORERS)]
    strata = rates.groupby(["rate_low", "rate_high"])["family"].nunique()
    edges = [pair for pair, count in strata.items() if count >= FAMILIES]
    if not edges:
        return None
    rows = rows_of(set(rates["family"]))
    figure, grid = plt.subplots(
        2,
        len(edges),
        figsize=(TWO_COLUMNS, 1.2 + 0.4 * max(*rows.values(), 1)),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for line, scorer in zip(grid, SCORERS):
        here = rates[rates["scorer"] == scorer]
        for axes, (low, high) in zip(line, edges):
            inside = (latents["rate"] >= low) & (latents["rate"] < high)
            bins = here[here["rate_low"] == low].set_index("family")
            _panel(axes, latents[inside].dropna(subset=[scorer]), scorer, bins, rows)
        line[0].set_ylabel(scorer)
        line[0].set_yticks(list(rows.values()), [LABEL[family] for family in rows])
    for axes, (low, high) in zip(grid[0], edges):
        axes.set_title(f"{_digit(100 * low)}–{_digit(100 * high)} %")
    grid[0][0].set_ylim(max(rows.values()) + 0.6, -0.6)
    lowest = latents[list(SCORERS)].min(axis=None)
    grid[0][0].set_xlim(max(0, min(0.42, np.floor(lowest * 20) / 20)), 1.02)
    grid[-1][len(edges) // 2].set_xlabel("balanced accuracy on unseen windows")
    keys = control_keys(rows)
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    confidence = level(means[means["measure"] == ACCURACY])
    caption = (
        "Scores of explained latents within strata of their firing rate, half a decade each (above "
        "the panels, of all tokens, to one digit). Violins: distribution over a family's latents; "
        "markers: their means, hollow of untrained twins, half filled of its model at an "
        f"earlier step, with {confidence} bootstrap intervals over latents, which describe "
        "these trained models only. Left out: strata in which fewer than two families, and "
        "families of which fewer than five latents, lie. Dotted: chance." + pair_note(tables)
    )
    return figure, caption


def _digit(value: float) -> str:
    """Return a number to one digit: 0.03, 10."""
    return f"{float(f'{value:.1g}'):g}"


def _panel(
    axes: Axes, latents: pd.DataFrame, scorer: str, bins: pd.DataFrame, rows: dict[str, float]
) -> None:
    """Draw the families that have a mean in a stratum."""
    axes.axvline(0.5, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
    for family, y in rows.items():
        if family not in bins.index:
            continue
        violin(axes, latents.loc[latents["family"] == family, scorer].to_numpy(), y, family)
        row = bins.loc[family]
        reach = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        style = marker_style(family, size=3.2)
        axes.errorbar(row["mean"], y, xerr=reach, elinewidth=1, zorder=4, **style)  # pyright: ignore[reportArgumentType]
    row_axes(axes)
