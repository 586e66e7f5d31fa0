"""What mean-ablating each feedforward layer costs, in each model."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from common import (
    COLOR,
    DOTS,
    GREY,
    MARKER,
    ONE_COLUMN,
    layer_axis,
    models,
    over_seeds,
    read,
    seeds,
)
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

# Costs below this cannot be told from zero; they are drawn on this line as hollow markers.
FLOOR = 1e-3


def draw(tables: Path) -> tuple[Figure, str]:
    """Return the figure and its caption."""
    layers = read(tables, "layers")
    costs = layers[layers["kind"] == "model"]
    threshold = costs["threshold"].iloc[0]
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 2.3))
    for model, style in models(costs["name"]).items():
        own = costs[costs["name"] == model]
        clipped = own.assign(cost=own["cost"].clip(lower=FLOOR))
        look = {"color": COLOR[model], "marker": MARKER[model], "ls": style}
        over_seeds(axes, clipped, "cost", **look, label=f"{model} model")
        at_floor = clipped[clipped["cost"] == FLOOR]
        if len(at_floor):
            hollow = look | {"ls": "", "markerfacecolor": "white", "clip_on": False, "zorder": 4}
            axes.plot(at_floor["layer"], at_floor["cost"], **hollow)
    axes.axhline(threshold, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
    axes.annotate(
        f"{threshold:g} nats: layers above it matter",
        (0.0, threshold),
        xycoords=("axes fraction", "data"),
        xytext=(3, -7.5),
        textcoords="offset points",
        color=GREY,
        fontsize=6,
    )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    lowest = max(FLOOR, costs["cost"].min())
    axes.set_ylim(bottom=FLOOR if lowest == FLOOR else min(lowest, threshold) / 2)
    axes.set_ylabel("cost of mean-ablation (nats)")
    layer_axis(axes, costs["layer"])
    axes.legend(loc="upper right")
    caption = (
        "Rise of the held-out loss when one feedforward layer's output is replaced by its mean "
        f"({seeds(costs)}; log scale). Layers below the dotted line are left out of the second "
        "kind of summary. Hollow markers on the lower edge, where drawn: at most "
        f"{FLOOR:g} nats."
    )
    return figure, caption
