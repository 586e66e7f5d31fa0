"""What latents do to the next token: how much, and how well sentences name it."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import (
    COLOR,
    DOTS,
    GREY,
    TWO_COLUMNS,
    level,
    marker_style,
    name_rows,
    read,
    row_axes,
    rows_of,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

OTHERS = {
    "lens_auroc": ("|", "by the logit lens"),
    "random_auroc": ("+", "by the lens of a random direction"),
    "effect_auroc_shuffled": ("x", "of other latents"),
}


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where no latent was ablated."""
    means = read(tables, "effect_means")
    if means.empty:
        return None
    rows = rows_of(set(means["family"]))
    height = 1.2 + 0.25 * max(rows.values(), default=0)
    figure, panels = plt.subplots(1, 2, figsize=(TWO_COLUMNS, height), sharey=True)
    _sentences(panels[0], means, rows)
    _sizes(panels[1], means, rows)
    name_rows(panels[0], rows)
    for axes in panels:
        row_axes(axes)
    plain = {"ls": "", "color": "0.25", "markersize": 4.5}
    keys = [Line2D([], [], marker="o", **plain, label="a latent's own sentence")]  # pyright: ignore
    keys += [Line2D([], [], marker=m, **plain, label=label) for m, label in OTHERS.values()]  # pyright: ignore
    keys.append(Line2D([], [], color=GREY, lw=0.7, ls=DOTS, label="chance"))
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    caption = (
        "What explained latents do to the next token, by ablating each at single tokens of "
        "held-out text. Left: how well a sentence names the words that move (area under the ROC "
        "curve over the vocabulary). Right: by how much the prediction changes, in nats (KL "
        "divergence) per token at which the latent is active; a cross: a random direction of the "
        f"same size taken away at the same tokens. {level(means)} bootstrap intervals over latents."
    )
    return figure, caption


def _sentences(axes: Axes, means: pd.DataFrame, rows: dict[str, float]) -> None:
    axes.axvline(0.5, color=GREY, lw=0.7, ls=DOTS, zorder=0)
    for row in means.itertuples():
        family, y = str(row.family), rows[str(row.family)]
        if row.measure == "effect_auroc":
            _mean(axes, row, y, family)
        elif row.measure in OTHERS:
            style = {"color": COLOR[family], "markersize": 4.5, "markeredgewidth": 0.9}
            axes.plot(row.mean, y, marker=OTHERS[str(row.measure)][0], ls="", **style)  # pyright: ignore
    axes.set_xlabel("sentence names what moves (AUROC)")
    axes.set_xlim(0.4, 1)


def _sizes(axes: Axes, means: pd.DataFrame, rows: dict[str, float]) -> None:
    for row in means.itertuples():
        family, y = str(row.family), rows[str(row.family)]
        if row.measure == "divergence":
            _mean(axes, row, y, family)
        elif row.measure == "divergence_random":
            axes.plot(row.mean, y, marker="x", ls="", color=COLOR[family], markersize=4)  # pyright: ignore
    axes.set_xlabel("nats per active token")
    axes.set_xlim(left=0)


def _mean(axes: Axes, row, y: float, family: str) -> None:
    reach = [[max(0, row.mean - row.low)], [max(0, row.high - row.mean)]]
    axes.errorbar(row.mean, y, xerr=reach, elinewidth=1.2, zorder=3, **marker_style(family))
