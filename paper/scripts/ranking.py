"""All metrics ranked by how they order runs by their generalization gap, beside the nulls."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import GREY, TWO_COLUMNS, metric_label, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

COLOR = {"measure": "#0072B2", "reference": "#666666"}
MARKER = {"measure": "o", "reference": "D"}
BAND = "0.9"
GAP = 0.8
LEVEL = 0.05


def draw(tables: Path) -> tuple[Figure, str] | None:
    """The figure and its caption; nothing where no task has enough runs to be ranked."""
    if not (tables / "generalization_ranking.csv").exists():
        return None
    ranking = read(tables, "generalization_ranking")
    if ranking.empty:
        return None
    tasks = list(ranking["task"].unique())
    places = [_places(ranking[ranking["task"] == task]) for task in tasks]
    heights = [max(rows.values()) + 1.2 for rows in places]
    figure, grid = plt.subplots(
        len(tasks),
        2,
        figsize=(TWO_COLUMNS, 0.9 + 0.15 * sum(heights)),
        height_ratios=heights,
        sharey="row",
        squeeze=False,
    )
    for line, task, rows in zip(grid, tasks, places):
        part = ranking[ranking["task"] == task]
        for axes, name in zip(line, ("tau", "score")):
            _panel(axes, part, name, rows)
        line[0].set_yticks(list(rows.values()), [metric_label(metric) for _, metric in rows])
        line[0].set_ylim(max(rows.values()) + 0.7, -0.7)
        line[0].set_xlim(-1.02, 1.02)
        line[0].set_title(f"{task}, {int(part['runs'].max())} runs")
        # Never nothing: where no metric knows more than the settings, the null is still drawn.
        furthest = part[["score", "score_band"]].max().max()
        line[1].set_xlim(-0.03 * furthest, 1.05 * furthest)
    grid[-1][0].set_xlabel("Kendall's τ with the generalization gap")
    grid[-1][1].set_xlabel("conditional information on the order of gaps (%)")
    figure.legend(handles=_keys(), loc="outside lower center", ncols=4)
    first = ranking.iloc[0]
    level = f"{100 * first['confidence']:g} %"
    caption = (
        "How well each metric orders runs by their generalization gap. Left: Kendall's τ with "
        f"{level} bootstrap intervals over runs; above zero a higher value goes with a larger gap. "
        "Right: what a metric tells of the order beyond any two settings, the competition's score "
        "(conditional mutual information, in per cent of what is unknown). Grey: what the best of "
        f"all metrics of a kind stays within in {level} of {int(first['permutations']):,} "
        "permutations of whole runs; filled markers lie outside, corrected for the number of "
        "metrics. Diamonds: what is known without any metric, the settings and the training loss. "
        f"{_left_out(ranking)}The intervals and nulls speak for runs of these settings only."
    )
    return figure, caption


def _left_out(ranking: pd.DataFrame) -> str:
    missing = ranking.groupby("task")["not_reached"].first().sum()
    return f"Runs that did not reach the training loss are left out ({missing:g}). " * bool(missing)


def _places(part: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Where each metric stands, measures above references."""
    rows: dict[tuple[str, str], float] = {}
    y = 0.0
    for kind, group in part.groupby("kind", sort=False):
        for metric in group["metric"]:
            rows[str(kind), metric] = y
            y += 1
        y += GAP
    return rows


def _panel(axes: Axes, part: pd.DataFrame, name: str, rows: dict[tuple[str, str], float]) -> None:
    for kind, group in part.groupby("kind", sort=False):
        own = [y for (of, _), y in rows.items() if of == kind]
        band = group[f"{name}_band"].iloc[0]
        low = -band if name == "tau" else 0
        # Two stacks of rows, each with the null of its own number of metrics.
        axes.fill_betweenx([min(own) - 0.5, max(own) + 0.5], low, band, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color="0.2", lw=0.6, zorder=1.5)
    for row in part.dropna(subset=[name]).itertuples():
        value, color = getattr(row, name), COLOR[row.kind]
        clear = getattr(row, f"{name}_adjusted") <= LEVEL
        error = None
        if name == "tau":
            error = [[max(0, value - row.tau_low)], [max(0, row.tau_high - value)]]
        axes.errorbar(
            value,
            rows[row.kind, row.metric],
            xerr=error,
            color=color,
            marker=MARKER[row.kind],
            markersize=3.6,
            markerfacecolor=color if clear else "white",
            markeredgewidth=0.8,
            elinewidth=0.8,
            zorder=3,
        )
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _keys() -> list[Line2D | Patch]:
    blue, plain = COLOR["measure"], {"ls": ""}
    return [
        Line2D([], [], marker="o", color=blue, **plain, label="exceeds its null"),
        Line2D([], [], marker="o", color=blue, markerfacecolor="white", **plain, label="does not"),
        Line2D([], [], marker="D", color=GREY, **plain, label="settings, training loss"),
        Patch(facecolor=BAND, label="null, best of all metrics"),
    ]
