"""What scoring on windows that the explainer has seen is worth, by family and by firing rate."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import (
    COLOR,
    GREY,
    LABEL,
    ONLY_THESE,
    SCORERS,
    TWO_COLUMNS,
    level,
    line_style,
    marker_style,
    read,
    row_axes,
    rows_of,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

# Offsets that distinguish the parts of a difference; a family keeps its colour and marker.
SHIFT = {"overlap": -0.17, "both": 0.17}


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where no latent could be compared."""
    table = read(tables, "protocols")
    if table.empty:
        return None
    whole = table[table["rate_low"].isna() & table["both_low"].notna()]
    bins = table[table["rate_low"].notna()]
    rows = rows_of(set(whole["family"]))
    height = 1.1 + 0.24 * max(rows.values(), default=0)
    figure, panels = plt.subplots(
        1,
        4,
        figsize=(TWO_COLUMNS, height),
        width_ratios=(1, 1, 1.05, 1.05),
    )
    for axes, scorer in zip(panels[:2], SCORERS):
        _families(axes, whole[whole["scorer"] == scorer], rows)
        axes.set_title(scorer)
        axes.set_yticks(
            list(rows.values()),
            [LABEL[family] for family in rows] if axes is panels[0] else [""] * len(rows),
        )
    edges = [whole[[f"{name}{end}" for name in SHIFT]] for end in ("_low", "_high")]
    for axes in panels[:2]:
        if len(whole):
            low, high = min(0, edges[0].min().min()), edges[1].max().max()
            axes.set_xlim(low - 0.002, high + 0.002)
        axes.set_xlabel("difference of scores")
    first = bins[bins["scorer"] == SCORERS[0]]
    _by_rate(panels[2], first, "seen")
    panels[2].set_ylabel("share that the explainer saw")
    panels[2].set_ylim(bottom=0)
    _by_rate(panels[3], first, "overlap")
    panels[3].axhline(0, color=GREY, lw=0.7, zorder=0)
    panels[3].set_ylabel("worth of the overlap")
    panels[3].set_title(SCORERS[0])
    figure.legend(handles=_keys(), loc="outside lower center", ncols=2)
    pooled = whole[whole["scorer"] == SCORERS[0]]
    left, compared = pooled["too_few"].sum(), pooled["n"].sum()
    caption = (
        "What scoring on windows that the explainer has seen is worth: the same latents with the "
        "same explanations, scored by the judge of rules under three protocols. delphi's draws "
        "windows for explaining and for scoring from one text with the same random numbers; "
        "disjoint ones are drawn in the same way from the windows of that text that the explainer "
        "has not seen; held-out ones from other text. Left: delphi's score minus that on disjoint "
        "windows (the overlap alone, upper markers) and minus that on held-out text (lower "
        "markers). Right, by firing rate per token: the share of the active scoring windows that "
        f"the explainer had seen ({100 * pooled['seen'].min():.0f} to "
        f"{100 * pooled['seen'].max():.0f} % by family), and what the overlap is worth. Left out "
        f"are {left:,.0f} of the {left + compared:,.0f} latents that could be explained, whose "
        "windows are too few for one of the draws (unseen ones among them), and families and bins "
        "with too few latents. Negative windows are never shared. Hollow: "
        "untrained twins; half filled: coders trained on the untrained model. "
        + ONLY_THESE.format(level=level(table))
    )
    return figure, caption


def _families(axes: Axes, part: pd.DataFrame, rows: dict[str, float]) -> None:
    axes.axvline(0, color=GREY, lw=0.7, zorder=0)
    for row in part.itertuples():
        for name, shift in SHIFT.items():
            value = getattr(row, name)
            low, high = getattr(row, f"{name}_low"), getattr(row, f"{name}_high")
            axes.errorbar(
                value,
                rows[row.family] + shift,
                xerr=[[max(0, value - low)], [max(0, high - value)]],
                **marker_style(row.family, 4.5 if name == "overlap" else 2.8),
                elinewidth=1.1 if name == "overlap" else 0.6,
                zorder=3,
            )
    axes.set_ylim(max(rows.values(), default=0) + 0.6, -0.6)
    row_axes(axes)


def _by_rate(axes: Axes, bins: pd.DataFrame, column: str) -> None:
    for family in rows_of(set(bins["family"])):
        own = bins[bins["family"] == family]
        middle = np.sqrt(own["rate_low"] * own["rate_high"])
        style = line_style(family) | {"label": None}
        if f"{column}_low" in own:
            axes.vlines(
                middle,
                own[f"{column}_low"],
                own[f"{column}_high"],
                color=COLOR[family],
                lw=0.5,
                alpha=0.6,
            )
        axes.plot(middle, own[column], **style)  # pyright: ignore[reportArgumentType]
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y")
    axes.set_xlabel("firing rate per token")


def _keys() -> list[Line2D]:
    plain = {"ls": "", "color": "0.25", "marker": "o"}
    return [
        Line2D([], [], **plain, markersize=4.5, label="delphi minus disjoint: the overlap alone"),
        Line2D([], [], **plain, markersize=2.8, label="delphi minus held-out: overlap and text"),
    ]
