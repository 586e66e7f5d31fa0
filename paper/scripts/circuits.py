"""How many latents a circuit needs, by family and task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import COLOR, GREY, LABEL, TWO_COLUMNS, level, marker_style, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

LINES: dict[str, Any] = {"kept": "-", "alone": (0, (3, 1.5)), "random": (0, (1, 1.5))}
NAMES = {
    "kept": "latents of the largest effects",
    "alone": "the same with errors at their mean",
    "random": "latents at random",
}


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where no model can do any task."""
    sizes, circuits = read(tables, "circuit_sizes"), read(tables, "circuits")
    tasks = list(dict.fromkeys(sizes["task"]))
    if not tasks:
        return None
    done = circuits.merge(sizes[["family", "task"]])
    figure, panels = plt.subplots(
        1, len(tasks), figsize=(TWO_COLUMNS, 2.6), sharey=True, squeeze=False
    )
    for axes, task in zip(panels[0], tasks):
        _panel(axes, pd.DataFrame(done[done["task"] == task]))
        axes.set_title(task)
    panels[0, 0].set_ylabel("faithfulness")
    families = list(dict.fromkeys(done["family"]))
    keys = [Line2D([], [], lw=1, **marker_style(f, 4), label=LABEL[f]) for f in families]  # pyright: ignore
    keys += [Line2D([], [], color="0.25", lw=1, ls=LINES[k], label=NAMES[k]) for k in LINES]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    caption = (
        "Circuits: the share of the logit difference between right and wrong answer that is left "
        "when some latents at some positions keep their value and all others have their mean over "
        "the task's prompts; error nodes are kept unless said otherwise. Effects are measured on "
        f"half of the pairs of prompts, circuits run on the others. Bars: {level(done)} bootstrap "
        "intervals over pairs. Only tasks that the family's model can do."
    )
    return figure, caption


def _panel(axes: Axes, task: pd.DataFrame) -> None:
    for end in (0, 1):
        axes.axhline(end, color=GREY, lw=0.6, zorder=0)
    means = task.groupby(["family", "circuit", "nodes"], as_index=False, sort=False)
    means = pd.DataFrame(means.mean(numeric_only=True))
    for family in dict.fromkeys(means["family"]):
        for kind, dashes in LINES.items():
            own = means[(means["family"] == family) & (means["circuit"] == kind)]
            size, share = (own[name].to_numpy(float) for name in ("nodes", "faithfulness"))
            axes.plot(size, share, color=COLOR[family], lw=1, ls=dashes)
            if kind == "kept":
                low, high = (own[end].to_numpy(float) for end in ("low", "high"))
                reach = [np.clip(share - low, 0, None), np.clip(high - share, 0, None)]
                style = marker_style(family, 4)
                axes.errorbar(size, share, yerr=reach, ls="", elinewidth=0.6, **style)  # pyright: ignore
    axes.set_xscale("log")
    axes.set_ylim(-0.3, 1.6)
    axes.set_xlabel("latents kept")
