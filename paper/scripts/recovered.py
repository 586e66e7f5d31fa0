"""Loss recovered by each coder, per layer and with all layers spliced in at once."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from common import (
    DOTS,
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
from matplotlib.figure import Figure


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where there is no coder."""
    layers, splice_all = read(tables, "layers"), read(tables, "splice_all")
    coders = layers[layers["kind"] == "family"]
    present = sorted(rows_of(set(splice_all["family"])), key=is_control)
    if not present:
        return None
    figure, (axes, last) = plt.subplots(
        1, 2, figsize=(TWO_COLUMNS, 2.2), width_ratios=(6, 1), sharey=True
    )
    for index, family in enumerate(present):
        style = line_style(family)
        over_seeds(axes, coders[coders["name"] == family], "loss_recovered", **style)
        own = splice_all[splice_all["family"] == family]["loss_recovered"]
        offset = 0.12 * (index - (len(present) - 1) / 2)
        last.plot([offset] * len(own), own, **(style | {"linestyle": ""}))
    for one in (axes, last):
        one.axhline(1, color=GREY, lw=0.7, zorder=0)
        one.axhline(0, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
        one.grid(axis="y")
    for layer in _left_out(coders):
        axes.axvspan(layer - 0.4, layer + 0.4, color="0.94", lw=0, zorder=0)
        axes.text(layer, 0.03, "does not\nmatter", color=GREY, fontsize=5.5, ha="center")
    axes.set_ylabel("loss recovered")
    low = min(coders["loss_recovered"].min(), splice_all["loss_recovered"].min())
    axes.set_ylim(max(-0.5, min(0, low)) - 0.05, 1.05)
    layer_axis(axes, coders["layer"])
    last.set_xticks([0], ["all\nlayers"])
    last.set_xlim(-0.5, 0.5)
    last.tick_params(axis="x", length=0)
    legend(figure, [axes], columns=5)
    caption = (
        "Share of the loss caused by mean-ablation that is recovered when a coder's reconstruction "
        "takes the place of the dense model's feedforward output: one layer at a time, and all "
        f"layers at once ({seeds(coders)}). 1: no loss; 0 (dotted): as bad as the mean. Layers "
        "whose mean-ablation costs too little to divide by are left out. Values below the axis "
        "are cut off."
    )
    return figure, caption


def _left_out(coders) -> list[int]:
    """Return the layers that matter in no seed."""
    matters = coders["matters"].astype(bool).groupby(coders["layer"]).any()
    return [int(layer) for layer, any_seed in matters.items() if not any_seed]
