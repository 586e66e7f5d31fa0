"""What is left of a model that runs on the explanations of its latents."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import COLOR, GREY, TWO_COLUMNS, level, marker_style, name_rows, read, row_axes, rows_of
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# What takes the place of latents besides their explanations, from floor to ceiling; how it is told.
OTHERS = {
    "exact": ("|", "exact latents"),
    "bits": ("4", "true bits"),
    "joint": ("+", "explanations jointly"),
    "graded": ("^", "explanations, graded by word"),
    "token-output": ("d", "mean by current word"),
    "trigger": ("x", "trigger words alone"),
    "shuffled": (".", "others' explanations"),
    "mean": ("|", "their means"),
}
PLACES = {"all": ("all layers at once", 0), "later": ("layers 1 on, summed", 0.24)}


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where nothing was executed."""
    table = read(tables, "execution")
    if table.empty:
        return None
    rows = rows_of(set(table["family"]))
    height = 1.35 + 0.27 * max(rows.values(), default=0)
    figure, panels = plt.subplots(
        1, 2, figsize=(TWO_COLUMNS, height), width_ratios=(1.6, 1), sharey=True
    )
    means = table.groupby(["family", "layer", "stand_in"], as_index=False).mean(numeric_only=True)
    _nats(panels[0], means[means["layer"] == "all"], rows)
    _kept(panels[1], table[table["stand_in"] == "rules"], rows)
    name_rows(panels[0], rows)
    for axes in panels:
        row_axes(axes)
    figure.legend(handles=_keys(), loc="outside lower center", ncols=3)
    caption = (
        "Executed explanations: the model runs with explanations in the place of latents. Left: "
        "loss in nats above the clean model's, all layers at once, with explanations (large "
        "markers) and with what else may stand there; grey lines reach from the exact latents to "
        "latents at their mean. Right: the share of the computation that is kept, 1 - KL(exact, "
        "explanations) / KL(exact, mean), with "
        f"{level(table)} bootstrap intervals over documents. Untrained coders have a decoder that "
        "was fitted to their codes."
    )
    return figure, caption


def _nats(axes: Axes, whole: pd.DataFrame, rows: dict[str, float]) -> None:
    for family, own in whole.groupby("family"):
        y, nats = rows[str(family)], own.set_index("stand_in")["nats"]
        axes.plot([nats["exact"], nats["mean"]], [y, y], color="0.85", lw=2.5, zorder=1)
        for name, (marker, _) in OTHERS.items():
            style = {"color": COLOR[str(family)], "markersize": 4.5, "markeredgewidth": 0.9}
            axes.plot(nats[name], y, marker=marker, ls="", zorder=2, **style)
        axes.plot(nats["rules"], y, zorder=3, **marker_style(str(family), 6.5))  # pyright: ignore
    axes.set_xlabel("nats above the clean model, all layers at once")
    axes.set_xlim(left=min(0, whole["nats"].min()) - 0.1)


def _kept(axes: Axes, rules: pd.DataFrame, rows: dict[str, float]) -> None:
    axes.axvline(0, color=GREY, lw=0.7, zorder=0)
    for place, (_, shift) in PLACES.items():
        for row in rules[rules["layer"] == place].itertuples():
            reach = [[max(0, row.kept - row.kept_low)], [max(0, row.kept_high - row.kept)]]
            style = marker_style(str(row.family), 5 if place == "all" else 3.2)
            axes.errorbar(
                row.kept, rows[str(row.family)] + shift, xerr=reach, elinewidth=1, **style
            )  # pyright: ignore
    axes.set_xlabel("share of the computation kept")
    axes.set_xlim(right=1)


def _keys() -> list[Line2D]:
    plain = {"ls": "", "color": "0.25", "markersize": 4.5}
    keys = [Line2D([], [], marker="o", **plain | {"markersize": 6.5}, label="explanations")]  # pyright: ignore
    seen = {}
    for marker, label in OTHERS.values():
        seen.setdefault(marker, []).append(label)
    keys += [
        Line2D(
            [],
            [],
            marker=marker,
            **plain,
            label=" (left), ".join(labels) + " (right)" * (len(labels) > 1),
        )  # pyright: ignore
        for marker, labels in seen.items()
    ]
    small = {"markersize": 3.2}
    for place, (label, _) in PLACES.items():
        size = {} if place == "all" else small
        keys.append(Line2D([], [], marker="o", **plain | size, label=label))  # pyright: ignore
    return keys
