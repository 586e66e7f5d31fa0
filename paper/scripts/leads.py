"""Whether metrics move before, with or after the test loss, over training seeds."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import TWO_COLUMNS, metric_label, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

COLOR = {
    "before": "#0072B2",
    "with": "#009E73",
    "after": "#D55E00",
    "undecided": "0.55",
}
BAND = "0.9"
GAP = 0.8
PER_LINE = 4
LEVEL = 0.05


def draw(tables: Path) -> tuple[Figure, str] | None:
    """The figure and its caption; nothing where no task has several training seeds."""
    if not (tables / "generalization_leads.csv").exists():
        return None
    leads = read(tables, "generalization_leads")
    leads["setting"] = leads["setting"].fillna("")
    if leads.empty:
        return None
    keys = ["task", "variant", "setting"]
    every = [group for _, group in leads.groupby(keys, sort=False)]
    groups = [group for group in every if group["verdict"].isin(COLOR).any()]
    still = [" ".join(_about(group)) for group in every if not group["verdict"].isin(COLOR).any()]
    if not groups:
        return None
    rows = _places(leads)
    lines = -(-len(groups) // PER_LINE)
    columns = min(PER_LINE, len(groups))
    figure, grid = plt.subplots(
        lines,
        columns,
        figsize=(TWO_COLUMNS, 0.8 + lines * (0.5 + 0.14 * max(rows.values()))),
        sharey=True,
        squeeze=False,
    )
    for axes in grid.flat[len(groups) :]:
        axes.set_axis_off()
    for axes, group in zip(grid.flat, groups):
        _panel(axes, group, rows)
    for line in grid:
        line[0].set_yticks(list(rows.values()), [metric_label(metric) for _, metric in rows])
        line[0].set_ylim(max(rows.values()) + 0.7, -0.7)
    figure.legend(handles=_keys(), loc="outside lower center", ncols=6)
    level = f"{100 * leads['confidence'].iloc[0]:g} %"
    seeds = sorted(leads["seeds"].unique())
    caption = (
        "How long before the test loss each metric changes level, paired by seed. The loss turns, "
        "so it is asked where it falls or where it rises, as each panel says with the step of its "
        "change: the larger movement that goes from one level to another. Metrics are asked in the "
        "span that reaches as far before this change as after it (from span_start to span_end in "
        "the table), in which a metric that changes at any time has no lead on average; changes "
        "outside it are not seen. Shown is the mean over "
        f"{' to '.join(str(count) for count in dict.fromkeys((seeds[0], seeds[-1])))} training "
        f"seeds with {level} bootstrap intervals over them; to the right the metric moves first. "
        "Grey: one checkpoint, below which no difference can be seen. Before, after: no lead is "
        "rejected, corrected for the number of metrics; leads that are equal in all seeds count as "
        "known to a checkpoint and no better; with: the interval lies within one "
        "checkpoint. Filled: the metric moves at the same checkpoints as the loss more than when "
        "the loss is shifted around a circle in time, corrected too. The lowest rows are the "
        "other curves. Where the metric or the loss has no two levels there is no marker."
        + (f" No metric has a marker in: {'; '.join(still)}, which are left out." if still else "")
    )
    return figure, caption


def _places(leads: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Where each metric stands: in the order of the tables, measures above the other curves."""
    rows: dict[tuple[str, str], float] = {}
    y = 0.0
    for kind, group in leads.groupby("kind", sort=False):
        for metric in group["metric"].unique():
            rows[str(kind), metric] = y
            y += 1
        y += GAP
    return rows


def _panel(axes: Axes, group: pd.DataFrame, rows: dict[tuple[str, str], float]) -> None:
    first = group.iloc[0]
    axes.axvspan(-first["tolerance"], first["tolerance"], color=BAND, lw=0, zorder=0)
    axes.axvline(0, color="0.2", lw=0.6, zorder=1.5)
    for row in group[group["verdict"].isin(COLOR)].itertuples():
        color, y = COLOR[row.verdict], rows[row.kind, row.metric]
        if np.isfinite(row.lead_low):
            axes.plot([row.lead_low, row.lead_high], [y, y], color=color, lw=0.9, zorder=2)
        axes.plot(
            row.lead,
            y,
            marker="o",
            color=color,
            markersize=3.6,
            markerfacecolor=color if row.together_adjusted <= LEVEL else "white",
            markeredgewidth=0.8,
            zorder=3,
        )
    turn = [f"{first['leg']} near step {first['loss_change']:,.0f}"] if "leg" in group else []
    axes.set_title("\n".join([*_about(group), *turn]))
    unit = "decades of steps" if first["unit"] == "decades" else "steps"
    axes.set_xlabel(f"after ← lead → before\n({unit})")
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _about(group: pd.DataFrame) -> list[str]:
    """What the runs of a group have in common."""
    first = group.iloc[0]
    about = [first["task"], first["variant"], *first["setting"].replace("_", " ").split(", ")]
    return [text for text in about if text]


def _keys() -> list[Line2D | Patch]:
    points = [
        Line2D([], [], ls="-", lw=0.9, marker="o", color=color, markerfacecolor="white", label=name)
        for name, color in COLOR.items()
    ]
    together = Line2D([], [], ls="", marker="o", color="0.25", label="moves together")
    return [*points, together, Patch(facecolor=BAND, label="one checkpoint")]
