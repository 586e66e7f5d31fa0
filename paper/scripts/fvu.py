"""Fraction of variance unexplained by layer and coder family, with its baselines."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from common import (
    FAMILIES,
    GREY,
    TWO_COLUMNS,
    layer_axis,
    legend,
    line_style,
    over_seeds,
    read,
    rows_of,
    seeds,
)
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# By what coders read: title and baselines.
PANELS = {
    "feedforward input": (
        "From input to output",
        ("fvu_token_mean", "fvu_pca", "fvu_linear"),
    ),
    "feedforward output": ("From output to output", ("fvu_token_mean", "fvu_pca")),
}
BASELINES = {
    "fvu_token_mean": ("mean by current token", (0, (1, 1.2)), "x"),
    "fvu_pca": ("PCA of rank k", (0, (5, 1.5)), "+"),
    "fvu_linear": ("linear map", (0, (5, 1.2, 1, 1.2)), "1"),
}


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where there is no coder."""
    layers = read(tables, "layers")
    coders = layers[layers["kind"] == "family"]
    present = rows_of(set(coders.dropna(subset="fvu")["name"]))
    reads = {what: [one for one in present if FAMILIES[one]["reads"] == what] for what in PANELS}
    shown = [(*PANELS[what], inside) for what, inside in reads.items() if inside]
    if not shown:
        return None
    figure, grid = plt.subplots(
        1, len(shown), figsize=(TWO_COLUMNS, 2.4), sharey=True, squeeze=False
    )
    panels = list(grid[0])
    for axes, (title, baselines, inside) in zip(panels, shown):
        for family in inside:
            over_seeds(axes, coders[coders["name"] == family], "fvu", **line_style(family))
        own = coders[coders["name"] == inside[0]]
        for column in baselines:
            label, style, marker = BASELINES[column]
            over_seeds(axes, own, column, color=GREY, ls=style, marker=marker, lw=0.9, label=label)
        axes.set_title(title)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(_few))
        axes.grid(axis="y")
        layer_axis(axes, coders["layer"])
    legend(figure, panels, columns=4)
    panels[0].set_ylabel("fraction of variance unexplained")
    caption = (
        "Fraction of the variance of the dense model's feedforward outputs that each coder leaves "
        f"unexplained on held-out tokens (1 - R2; {seeds(coders)}; log scale, lower is better), "
        "with untrained twins, coders of the model at step 0 (of its own outputs) and, for the "
        "trained model, baselines: the mean by current token, a PCA of rank k and, for "
        "transcoders, a linear map. Bands, where drawn, are the range over seeds."
    )
    return figure, caption


def _few(value: float, _: object) -> str:
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
