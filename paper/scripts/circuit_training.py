"""Questions and the latents that answer them over the checkpoints of language models."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import GREY, LABEL, TWO_COLUMNS, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

TASK_COLOR = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
TASK_MARKER = "osD^vPX"
MAX_FAMILIES = 4
ROWS = {
    "valid_loss": "validation loss [nats]",
    "difference": "logit difference",
    "nodes_80": "latents needed",
}
# Faithfulness for which `nodes_80` counts latents.
WANTED = 0.8


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where no model was followed."""
    rows = read(tables, "circuit_training")
    families = list(dict.fromkeys(rows["family"]))[:MAX_FAMILIES]
    # Tasks that some model can do at some checkpoint.
    tasks = list(dict.fromkeys(rows.loc[rows["done"], "task"]))[: len(TASK_COLOR)]
    if not families or not tasks:
        return None
    figure, grid = plt.subplots(
        len(ROWS),
        len(families),
        figsize=(TWO_COLUMNS, 4.4),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for axes, family in zip(grid.T, families):
        own = pd.DataFrame(rows[rows["family"] == family])
        axes[0].set_title(LABEL[family])
        _loss(axes[0], own)
        for task, color, marker in zip(tasks, TASK_COLOR, TASK_MARKER):
            _task(axes[1:], pd.DataFrame(own[own["task"] == task]), color, marker, task)
        axes[1].axhline(0, color=GREY, lw=0.6, zorder=0)
        if (rows[list(ROWS)[-1]] > 0).any():
            axes[-1].set_yscale("log")
            axes[-1].yaxis.set_minor_formatter(NullFormatter())
        axes[-1].set_xscale("log")
        axes[-1].xaxis.set_minor_formatter(NullFormatter())
        axes[-1].set_xlabel("step + 1")
    for axes, name in zip(grid[:, 0], ROWS.values()):
        axes.set_ylabel(name)
    handles, labels = grid[1][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    caption = (
        "Questions over training, for latents that nothing is fitted for: validation loss; mean "
        "logit difference between right and wrong answer; and how many latents of the largest "
        f"effects leave {100 * WANTED:.0f} % of it, "
        "at checkpoints at which the model can do the task. Means over "
        "training seeds; tasks that no model can do at any checkpoint are left out."
    )
    return figure, caption


def _loss(axes: Axes, own: pd.DataFrame) -> None:
    loss = own.groupby("step")["valid_loss"].mean()
    axes.plot(loss.index.to_numpy() + 1, loss.to_numpy(), color="black", lw=1, marker=".")


def _task(pair: list[Axes], own: pd.DataFrame, color: str, marker: str, label: str) -> None:
    for axes, name in zip(pair, list(ROWS)[1:]):
        mean = own.dropna(subset=[name]).groupby("step")[name].mean()
        style = {"color": color, "marker": marker, "markersize": 3, "lw": 1, "label": label}
        axes.plot(mean.index.to_numpy() + 1, mean.to_numpy(), **style)  # pyright: ignore[reportArgumentType]
