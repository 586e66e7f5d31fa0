"""Primary contrasts by layer: does the difference between families vary with depth?"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import (
    COLOR,
    LABEL,
    MARKER,
    ONLY_THESE,
    SCORERS,
    TWO_COLUMNS,
    layer_axis,
    legend,
    level,
    pair_note,
    read,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Horizontal distance of two contrasts in a layer.
STEP = 0.18


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where there is no primary contrast."""
    by_layer = read(tables, "layer_contrasts")
    if by_layer.empty:
        return None
    tests = read(tables, "layer_interactions").set_index(["a", "b", "scorer"])
    figure, grid = plt.subplots(
        1, len(SCORERS), figsize=(TWO_COLUMNS, 2.3), sharey=True, squeeze=False
    )
    for axes, scorer in zip(grid[0], SCORERS):
        axes.axhline(0, color="0.2", lw=0.8, zorder=1.5)
        axes.set_title(scorer)
        own = by_layer[by_layer["scorer"] == scorer]
        groups = list(own.groupby(["a", "b"], sort=False))
        for index, (pair, rows) in enumerate(groups):
            _contrast(axes, rows, pair, STEP * (index - (len(groups) - 1) / 2))
        layer_axis(axes, own["layer"])
        axes.grid(axis="y")
    grid[0][0].set_ylabel("difference of mean\nbalanced accuracy")
    legend(figure, grid[0], columns=2)
    caption = (
        "Primary contrasts by layer: live latents, those without an explanation at chance. Above "
        "zero native latents score higher. Bars: intervals over latents; thin lines, where there "
        "are several training seeds: over these. Hollow: the layer does not matter in both models. "
        f"Does the difference vary over layers that matter? {_tests(tests)}. "
        + ONLY_THESE.format(level=level(by_layer))
        + pair_note(tables)
    )
    return figure, caption


def _contrast(axes: Axes, rows: pd.DataFrame, pair: tuple[str, str], offset: float) -> None:
    a, b = pair
    color, x, y = COLOR[b], rows["layer"] + offset, rows["difference"]
    if "low_seeds" in rows:
        axes.vlines(x, rows["low_seeds"], rows["high_seeds"], color=color, lw=0.6)
    axes.errorbar(
        x,
        y,
        yerr=[y - rows["low"], rows["high"] - y],
        color=color,
        ls="",
        elinewidth=1.5,
        marker=MARKER[b],
        ms=3.5,
        label=f"{LABEL[a]} − {LABEL[b]}",
    )
    hollow = ~rows["matters"].astype(bool)
    white = {"mfc": "white", "mec": "white", "zorder": 4}
    axes.plot(x[hollow], y[hollow], ls="", marker=MARKER[b], ms=2, **white)


def _tests(tests: pd.DataFrame) -> str:
    """Return the tests of all contrasts as text."""
    return "; ".join(
        f"{LABEL[str(a)]} − {LABEL[str(b)]}, {scorer}: p = {row['p']:.2g}, {row['slope']:+.3f} "
        f"[{row['slope_low']:+.3f}, {row['slope_high']:+.3f}] per layer".replace("-0", "−0")
        for (a, b, scorer), row in tests.iterrows()  # pyright: ignore[reportGeneralTypeIssues]
        if scorer in SCORERS
    )
