"""Differences between families: unmatched, matched by firing rate, matched by activity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import (
    ACCURACY,
    FAMILIES,
    LABEL,
    ONLY_THESE,
    OVER_LAYERS,
    SCORERS,
    TWO_COLUMNS,
    is_tokens,
    level,
    pair_note,
    read,
    row_axes,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

WAYS = {
    "none": ("all explained latents", "#000000", "o"),
    "rate": ("matched by firing rate", "#56B4E9", "s"),
    "activity": ("matched by active windows", "#8A5A00", "^"),
}
# Of kinds that are no family: a control of all families.
HEADINGS = {
    "primary": "Primary",
    "secondary": "Secondary",
    "untrained twin": "Against the untrained twin",
    "untrained model": "Against the untrained model",
    "planted": "Planted rules",
    "own shuffled": "Against shuffled explanations",
}
# Level of the interval that shows equivalence: two one-sided tests at 5 % each.
EQUIVALENCE = 0.9
GAP, HEADING, STEP = 1.5, 0.85, 0.24


def draw(tables: Path) -> tuple[Figure, str]:
    """Return the figure and its caption."""
    contrasts = read(tables, "contrasts")
    contrasts = contrasts[(contrasts["seed"] == "all") & (contrasts["measure"] == ACCURACY)]
    figure = differences(contrasts, SCORERS, "difference of mean balanced accuracy")
    caption = (
        "Differences between families in mean rule-detection and rule-fuzzing: over all explained "
        "latents, within bins of firing rate that hold enough latents of both, and over pairs of "
        "latents that are active in as many windows. Right of zero the first family scores "
        "higher. Below, on an axis of their own, the controls that lie far off; the last group is "
        f"a latent's own explanation against another latent's. {margin_note(contrasts)}"
        + OVER_LAYERS
        + ONLY_THESE.format(level=level(contrasts))
        + pair_note(tables)
    )
    return figure, caption


def margin_note(contrasts: pd.DataFrame) -> str:
    """Return the caption's sentence on equivalence."""
    return (
        f"Shaded: differences below {contrasts['equivalence'].iloc[0]:g}; hollow markers: the "
        f"difference is shown to be so small ({100 * EQUIVALENCE:g} % interval within). "
    )


def differences(contrasts: pd.DataFrame, scorers: Sequence[str], label: str) -> Figure:
    """Draw contrasts of explained latents of all layers, a column per scorer, the ways of matching
    next to each other."""
    chosen = contrasts[(contrasts["layers"] == "all") & (contrasts["latents"] == "explained")]
    # Controls that lie far off have an axis of their own, or they would flatten all others.
    far = chosen["kind"].map(_is_far)
    parts = [part for part in (chosen[~far], chosen[far]) if len(part)]
    places = [_places(part) for part in parts]
    heights = [max(rows.values()) + 1.2 for rows, _ in places]
    figure, grid = plt.subplots(
        len(parts),
        len(scorers),
        figsize=(TWO_COLUMNS, 1.1 + 0.17 * sum(heights)),
        height_ratios=heights,
        sharey="row",
        sharex="row",
        squeeze=False,
    )
    for line, part, (rows, headings) in zip(grid, parts, places):
        for axes, scorer in zip(line, scorers):
            _panel(axes, part[part["scorer"] == scorer], rows)
            axes.xaxis.set_major_locator(MaxNLocator(min(6, 12 // len(scorers))))
        names = [f"{LABEL[a]} − {LABEL.get(b, b)}" for a, b in rows]
        line[0].set_yticks(list(rows.values()), names)
        line[0].set_ylim(max(rows.values()) + 0.6, -0.6)
        for kind, height in headings.items():
            line[0].annotate(
                HEADINGS.get(kind) or f"Against {LABEL[kind].removesuffix('s')}s",
                (0, height),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=6.5,
                fontweight="bold",
            )
    for axes, scorer in zip(grid[0], scorers):
        axes.set_title(scorer)
    for axes in grid[-1]:
        axes.set_xlabel(label)
    keys = [
        Line2D([], [], ls="-", lw=0.9, color=color, marker=marker, mew=0, label=text)
        for text, color, marker in WAYS.values()
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    return figure


def _is_far(kind: str) -> bool:
    """Tell whether a kind of contrast has no model in it: shuffled explanations, tokens alone."""
    return kind in ("planted", "own shuffled") or (kind in FAMILIES and is_tokens(kind))


def _places(part: pd.DataFrame) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Return the heights of the contrasts and of the headings above each kind."""
    rows: dict[tuple[str, str], float] = {}
    headings: dict[str, float] = {}
    y = 0.0
    for kind, group in part.groupby("kind", sort=False):
        headings[str(kind)] = y
        y += HEADING
        for a, b in group[["a", "b"]].drop_duplicates().itertuples(index=False):
            rows[a, b] = y
            y += 1
        y += GAP - 1
    return rows, headings


def _panel(axes: Axes, part: pd.DataFrame, rows: dict[tuple[str, str], float]) -> None:
    axes.axvline(0, color="0.2", lw=0.8, zorder=1.5)
    for margin in part["equivalence"].head(1):
        axes.axvspan(-margin, margin, color="0.92", lw=0, zorder=0)
    for offset, (matching, (_, color, marker)) in zip((-STEP, 0, STEP), WAYS.items()):
        for row in part[part["matching"] == matching].itertuples():
            value, y = row.difference, rows[row.a, row.b] + offset
            axes.plot([row.low_layers, row.high_layers], [y, y], color=color, lw=0.5, zorder=2)
            axes.errorbar(
                value,
                y,
                xerr=[[value - row.low], [row.high - value]],
                color=color,
                marker=marker,
                markersize=2.8,
                markerfacecolor="white" if row.equivalent else color,
                markeredgewidth=0.7 if row.equivalent else 0,
                elinewidth=1.2,
            )
    row_axes(axes)
