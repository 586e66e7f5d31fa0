"""Score against firing rate: latents, and means of bins, each family beside its untrained twin."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import (
    COLOR,
    GREY,
    LABEL,
    ONLY_THESE,
    SCORERS,
    TWO_COLUMNS,
    level,
    line_style,
    pair_note,
    read,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

# Families with the control that is drawn in the same panel.
COLUMNS = {
    "native": "random-native",
    "transcoder": "random-transcoder",
    "skip-transcoder": "random-transcoder",
    "sae": "random-sae",
    "neurons": "token-unigram",
}
# Points drawn per panel, evenly over the sorted rates: more would only fill the file.
POINTS = 150


def draw(tables: Path) -> tuple[Figure, str] | None:
    """The figure and its caption; nothing where there is no family to draw."""
    latents, rates, means = (read(tables, name) for name in ("latents", "rates", "means"))
    shown = [family for family in COLUMNS if (latents["family"] == family).any()]
    if not shown:
        return None
    figure, grid = plt.subplots(
        2,
        len(shown),
        figsize=(TWO_COLUMNS, 3.1),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for line, scorer in zip(grid, SCORERS):
        for axes, family in zip(line, shown):
            axes.axhline(0.5, color=GREY, lw=0.7, ls=(0, (1, 1.5)), zorder=0)
            own = latents[(latents["family"] == family) & latents[scorer].notna()]
            own = own.sort_values(["rate", "seed", "layer", "latent"])
            spread = np.linspace(0, len(own) - 1, min(POINTS, len(own)))
            kept = own.iloc[np.unique(spread.astype(int))]
            axes.plot(
                kept["rate"], kept[scorer], ls="", marker=".", ms=2, mew=0, color=COLOR[family],
                alpha=0.35,
            )  # fmt: skip
            here = rates[rates["scorer"] == scorer]
            shuffled = here[(here["family"] == family) & (here["explanation"] == "shuffled")]
            axes.plot(_middle(shuffled), shuffled["mean"], ls="", marker="x", ms=2.5, color=GREY)
            for one in (COLUMNS[family], family):
                _means(axes, here[(here["family"] == one) & (here["explanation"] == "own")], one)
        line[0].set_ylabel(scorer)
    for axes, family in zip(grid[0], shown):
        axes.set_title(LABEL[family])
        control = COLUMNS[family]
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        if (rates["family"] == control).any():
            axes.text(
                0.03, 0.02, f"hollow: {LABEL[control]}" if control != "token-unigram"
                else "grey: token unigram", transform=axes.transAxes, fontsize=5.5, color=GREY,
            )  # fmt: skip
    grid[0][0].set_ylim(0.36, 1.02)
    figure.supxlabel("firing rate per token", fontsize=7)
    caption = (
        "Scores of explained latents against their firing rate: single latents (points, a sample), "
        "and means over bins of half a decade with at least five latents, the family's own and "
        "those of the control named in the panel. Crosses: with shuffled explanations. "
        + ONLY_THESE.format(level=level(means))
        + pair_note(tables)
    )
    return figure, caption


def _middle(bins):
    return np.sqrt(bins["rate_low"] * bins["rate_high"])


def _means(axes: Axes, bins, family: str) -> None:
    style = line_style(family) | {"label": None}
    below, above = bins["mean"] - bins["low"], bins["high"] - bins["mean"]
    axes.errorbar(_middle(bins), bins["mean"], yerr=[below, above], elinewidth=0.8, **style)  # pyright: ignore[reportArgumentType]
