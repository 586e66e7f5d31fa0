"""The smallest circuit of each family side by side: which layers and positions it takes."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import COLOR, GREY, LABEL, TWO_COLUMNS, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

COLUMNS = 2
# Faithfulness of the circuits in `circuit_members`.
WANTED = 0.8
# Of a dot with the largest effect, in points².
LARGEST = 70
# Left and right of the middle of a position, for latents of one layer.
SPREAD = 0.34


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where there is no circuit."""
    members = read(tables, "circuit_members")
    families = list(dict.fromkeys(members["family"]))
    if not families:
        return None
    rows = -(-len(families) // COLUMNS)
    figure, grid = plt.subplots(
        rows,
        COLUMNS,
        figsize=(TWO_COLUMNS, 0.7 + 1.75 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    tokens = members.drop_duplicates("position").set_index("position")["token"].sort_index()
    # Side by side: the positions between them hold no latent of any circuit.
    members["column"] = members["position"].map(dict(zip(tokens.index, range(len(tokens)))))
    for axes, family in zip(grid.flat, families):
        _panel(axes, pd.DataFrame(members[members["family"] == family]), len(tokens))
        axes.set_xticks(range(len(tokens)), [text.strip() or text for text in tokens])
        axes.tick_params(axis="x", length=0)
    for axes in grid.flat[len(families) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("layer")
    dot = {"ls": "", "marker": "o", "markersize": 5, "alpha": 0.6}
    keys = [
        Line2D([], [], color="0.25", label="raises the right answer", **dot),  # pyright: ignore[reportArgumentType]
        Line2D([], [], color="0.25", mfc="none", label="raises the wrong answer", **dot),  # pyright: ignore[reportArgumentType]
        Line2D([], [], ls="", marker="s", markersize=4, color="0.85", label="error node"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    task = members["task"].iloc[0]
    caption = (
        f"The smallest circuit of each family for the task {task} that leaves {100 * WANTED:.0f} % "
        "of the logit difference: its latents by layer and by position in the prompts, larger "
        "where their effects are (first training seed). A family whose latents do not suffice "
        "alone has all of its error nodes, of all positions, in the circuit, too. Positions that "
        "hold no latent of any circuit are left out. Tokens are those of one prompt; all prompts "
        "of the task are worded alike."
    )
    return figure, caption


def _panel(axes: Axes, own: pd.DataFrame, columns: int) -> None:
    family, count = own["family"].iloc[0], len(own)
    layers, length = int(own["layers"].iloc[0]), int(own["length"].iloc[0])
    with_errors = bool(own["errors"].iloc[0])
    if with_errors:
        place = np.mgrid[0:columns, 0:layers].reshape(2, -1)
        axes.scatter(*place, s=9, marker="s", color="0.85", lw=0, zorder=1)
    said = f" and {layers * length} error nodes" if with_errors else ""
    title = f"{LABEL[str(family)]}: {count} latent{'s' * (count != 1)}{said}"
    axes.set_title(title, fontsize=7.5)
    # Side by side within a position and layer, in the order of their numbers.
    rank = own.groupby(["layer", "position"])["latent"].rank(method="first") - 1
    size = own.groupby(["layer", "position"])["latent"].transform("size")
    shift = SPREAD * (2 * rank / np.maximum(size - 1, 1) - 1) * (size > 1)
    effect = own["integrated"].to_numpy(float)
    area = np.maximum(2, LARGEST * np.abs(effect) / np.abs(effect).max())
    color = COLOR[str(family)]
    for side, face in ((effect >= 0, color), (effect < 0, "none")):
        style = {"s": area[side], "facecolor": face, "edgecolor": color, "lw": 0.7}
        x, y = ((own["column"] + shift)[side], own["layer"][side])
        axes.scatter(x, y, alpha=0.6, zorder=2, **style)
    axes.set_ylim(-0.6, layers - 0.4)
    axes.set_xlim(-0.7, columns - 0.3)
    axes.grid(axis="y", color=GREY, lw=0.2, alpha=0.4)
