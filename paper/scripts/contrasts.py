"""Differences between families: unmatched, matched by firing rate, matched by activity."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import LABEL, ONLY_THESE, SCORERS, TWO_COLUMNS, level, pair_note, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

WAYS = {
    "none": ("all explained latents", "#000000", "o"),
    "rate": ("matched by firing rate", "#56B4E9", "s"),
    "activity": ("matched by active windows", "#8A5A00", "^"),
}
HEADINGS = {
    "primary": "Primary",
    "secondary": "Secondary",
    "untrained twin": "Against the untrained twin",
    "untrained model": "Against the untrained model",
    "neurons": "Against neurons",
    "token-unigram": "Against token unigrams",
    "own shuffled": "Against shuffled explanations",
}
# Controls that lie far off have an axis of their own, or they would flatten all others.
FAR = ("token-unigram", "own shuffled")
GAP, HEADING, STEP = 1.5, 0.85, 0.24


def draw(tables: Path) -> tuple[Figure, str]:
    """The figure and its caption."""
    contrasts = read(tables, "contrasts")
    chosen = contrasts[
        (contrasts["layers"] == "all")
        & (contrasts["latents"] == "explained")
        & (contrasts["seed"] == "all")
    ]
    far = chosen["kind"].isin(FAR)
    parts = [part for part in (chosen[~far], chosen[far]) if len(part)]
    places = [_places(part) for part in parts]
    heights = [max(rows.values()) + 1.2 for rows, _ in places]
    figure, grid = plt.subplots(
        len(parts),
        2,
        figsize=(TWO_COLUMNS, 1.1 + 0.17 * sum(heights)),
        height_ratios=heights,
        sharey="row",
        sharex="row",
        squeeze=False,
    )
    for line, part, (rows, headings) in zip(grid, parts, places):
        for axes, scorer in zip(line, SCORERS):
            _panel(axes, part[part["scorer"] == scorer], rows)
        names = [f"{LABEL[a]} − {LABEL.get(b, b)}" for a, b in rows]
        line[0].set_yticks(list(rows.values()), names)
        line[0].set_ylim(max(rows.values()) + 0.6, -0.6)
        for kind, height in headings.items():
            line[0].annotate(
                HEADINGS[kind],
                (0, height),
                xycoords=("axes fraction", "data"),
                xytext=(-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=6.5,
                fontweight="bold",
            )
    for axes, scorer in zip(grid[0], SCORERS):
        axes.set_title(scorer)
    for axes in grid[-1]:
        axes.set_xlabel("difference of mean balanced accuracy")
    keys = [
        Line2D([], [], ls="-", lw=0.9, color=color, marker=marker, mew=0, label=label)
        for label, color, marker in WAYS.values()
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    caption = (
        "Differences between families in mean rule-detection and rule-fuzzing: over all explained "
        "latents, within bins of firing rate that hold enough latents of both, and over pairs of "
        "latents that are active in as many windows. Right of zero the first family scores "
        "higher. Below, on an axis of their own, the controls that lie far off; the last group is "
        "a latent's own explanation against another latent's. "
        + ONLY_THESE.format(level=level(contrasts))
        + pair_note(tables)
    )
    return figure, caption


def _places(part: pd.DataFrame) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
    """Heights of the contrasts and of the headings above each kind."""
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
    for offset, (matching, (_, color, marker)) in zip((-STEP, 0, STEP), WAYS.items()):
        for row in part[part["matching"] == matching].itertuples():
            value = row.difference
            axes.errorbar(
                value,
                rows[row.a, row.b] + offset,
                xerr=[[value - row.low], [row.high - value]],
                color=color,
                marker=marker,
                markersize=2.8,
                markeredgewidth=0,
                elinewidth=0.9,
            )
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
