"""What it costs to put coders in the place of feedforwards, per layer and all layers at once."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import (
    DOTS,
    FAMILIES,
    GREY,
    TWO_COLUMNS,
    is_control,
    layer_axis,
    legend,
    line_style,
    over_seeds,
    read,
    rows_of,
    seeds,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Costs below this cannot be told from zero and are drawn on the lower edge.
FLOOR = 1e-3


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where there is no coder."""
    layers, splice_all = read(tables, "layers"), read(tables, "splice_all")
    coders = layers[layers["kind"] == "family"]
    present = sorted(rows_of(set(splice_all["family"])), key=is_control)
    if not present:
        return None
    figure, grid = plt.subplots(
        2, 2, figsize=(TWO_COLUMNS, 3.9), width_ratios=(6, 1), sharey="row", sharex="col"
    )
    nats = ["nats_splice", "nats_ablate"]
    coders = coders.assign(nats_splice=coders["nats_splice"].clip(lower=FLOOR))
    splice_all[nats] = splice_all[nats].clip(lower=FLOOR)
    for line, column in zip(grid, ("nats_splice", "loss_recovered")):
        _families(line, coders, splice_all, present, column)
    _ceilings(grid[0], layers, splice_all, present)
    grid[0, 0].set_yscale("log")
    grid[0, 0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    grid[0, 0].set_ylabel("nats above the clean model")
    low = min(coders["loss_recovered"].min(), splice_all["loss_recovered"].min())
    grid[1, 0].set_ylabel("loss recovered")
    grid[1, 0].set_ylim(max(-0.5, min(0, low)) - 0.05, 1.05)
    for axes in grid[1]:
        axes.axhline(0, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
    for layer in _left_out(coders):
        grid[1, 0].axvspan(layer - 0.4, layer + 0.4, color="0.94", lw=0, zorder=0)
        grid[1, 0].text(layer, 0.03, "does not\nmatter", color=GREY, fontsize=5.5, ha="center")
    layer_axis(grid[1, 0], coders["layer"])
    grid[1, 1].set_xticks([0], ["all\nlayers"])
    grid[1, 1].set_xlim(-0.5, 0.5)
    grid[1, 1].tick_params(axis="x", length=0)
    legend(figure, grid[0], columns=5)
    caption = (
        "Loss when a coder's reconstruction takes the place of a feedforward's output, one layer "
        f"at a time and all layers at once ({seeds(coders)}). Above: in nats above the clean "
        "model's, on a log scale; grey: the model with that layer, or all layers, replaced by "
        f"their means. Losses of at most {FLOOR:g} nats lie on the lower edge. Below: the share of "
        "that cost which is not lost, left out where it is too small to divide by; values below "
        "the axis are cut off. Native latents are the feedforward and cost nothing."
    )
    return figure, caption


def _families(
    line: tuple[Axes, Axes],
    coders: pd.DataFrame,
    splice_all: pd.DataFrame,
    present: list[str],
    column: str,
) -> None:
    """Draw one measure of all families by layer, and beside it with all layers replaced."""
    for index, family in enumerate(present):
        style = line_style(family)
        over_seeds(line[0], coders[coders["name"] == family], column, **style)
        own = splice_all[splice_all["family"] == family][column]
        offset = 0.12 * (index - (len(present) - 1) / 2)
        line[1].plot([offset] * len(own), own, **(style | {"linestyle": ""}))
    for axes in line:
        axes.grid(axis="y")


def _ceilings(
    line: tuple[Axes, Axes], layers: pd.DataFrame, splice_all: pd.DataFrame, present: list[str]
) -> None:
    """Draw what mean-ablation costs in the models that the families read."""
    costs = layers[layers["kind"] == "model"]
    for model in dict.fromkeys(FAMILIES[family]["model"] for family in present):
        own = costs[costs["name"] == model]
        own = own.assign(cost=own["cost"].clip(lower=FLOOR))
        over_seeds(line[0], own, "cost", color=GREY, ls=DOTS, label=f"{model} model, ablated")
    for cost in splice_all["nats_ablate"].unique():
        line[1].axhline(cost, color=GREY, ls=DOTS)


def _left_out(coders: pd.DataFrame) -> list[int]:
    """Return the layers that matter in no seed."""
    matters = coders["matters"].astype(bool).groupby(coders["layer"]).any()
    return [int(layer) for layer, any_seed in matters.items() if not any_seed]
