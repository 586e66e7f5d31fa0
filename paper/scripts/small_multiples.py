"""Small multiples: a column per family, with its controls in the same panel, a row per scorer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import COLOR, CONTROLS, DOTS, GREY, LABEL, SCORERS, TWO_COLUMNS, line_style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Points drawn per panel, evenly over what they are sorted by: more would only fill the file.
POINTS = 150


def panels(
    families: pd.Series, height: float, label: str
) -> tuple[Figure, Iterator[tuple[Axes, str, str, list[str]]]] | None:
    """Return a figure, and for each panel its axes, scorer, family and controls; None where there
    is no family to draw."""
    present = set(families)
    shown = [family for family in CONTROLS if family in present]
    if not shown:
        return None
    figure, grid = plt.subplots(
        2, len(shown), figsize=(TWO_COLUMNS, height), sharex=True, sharey=True, squeeze=False
    )
    for axes, family in zip(grid[0], shown):
        axes.set_title(title(family))
    name_x(grid[-1], label)
    for line, scorer in zip(grid, SCORERS):
        line[0].set_ylabel(scorer)
        for axes in line:
            axes.axhline(0.5, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
    cells = (
        (axes, scorer, family, [one for one in CONTROLS[family] if one in present])
        for line, scorer in zip(grid, SCORERS)
        for axes, family in zip(line, shown)
    )
    return figure, cells


def title(family: str) -> str:
    """Return a family's name in lines that are narrow enough for a panel."""
    label = LABEL[family]
    return label.replace("-", "-\n", 1) if len(label) > 12 else label


def name_x(line: Sequence[Axes], label: str) -> None:
    """Name what the panels of a line share once, below the middle."""
    line[len(line) // 2].set_xlabel(label)


def points(axes: Axes, x: pd.Series, y: pd.Series, family: str) -> None:
    """Draw a sample of single latents, evenly over their order."""
    spread = np.linspace(0, len(x) - 1, min(POINTS, len(x)))
    sample = np.unique(spread.astype(int))
    axes.plot(
        x.iloc[sample],
        y.iloc[sample],
        ls="",
        marker=".",
        ms=2,
        mew=0,
        color=COLOR[family],
        alpha=0.35,
    )


def means(axes: Axes, x: pd.Series, rows: pd.DataFrame, family: str) -> None:
    """Draw means with their intervals, joined by a line."""
    style = line_style(family) | {"label": None}
    below, above = rows["mean"] - rows["low"], rows["high"] - rows["mean"]
    axes.errorbar(x, rows["mean"], yerr=[below, above], elinewidth=0.8, **style)  # pyright: ignore[reportArgumentType]
