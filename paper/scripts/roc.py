"""ROC curves of the scorer by embeddings, each family with its controls."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import (
    CONTROLS,
    DOTS,
    GREY,
    TWO_COLUMNS,
    chance_key,
    is_control,
    is_step0,
    is_twin,
    line_style,
    pair_note,
    read,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from small_multiples import name_x, title


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where no latent has a score."""
    roc, means = read(tables, "embedding_roc"), read(tables, "embedding_means")
    means = means[(means["seed"] == "all") & (means["layers"] == "all")]
    means = means[(means["latents"] == "explained") & (means["explanation"] == "own")]
    areas = means.set_index("family")["mean"]
    present = set(roc["family"])
    shown = [family for family in CONTROLS if family in present]
    if not shown:
        return None
    figure, grid = plt.subplots(
        1, len(shown), figsize=(TWO_COLUMNS, 2.1), sharex=True, sharey=True, squeeze=False
    )
    drawn = set()
    for axes, family in zip(grid[0], shown):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.7, ls=DOTS, zorder=0)
        controls = [one for one in CONTROLS[family] if one in present]
        _curve(axes, roc, family, "shuffled", color="0.25", ls=(0, (1, 1)), lw=0.9)
        for one in (*controls, family):
            _curve(axes, roc, one, "own", **{**line_style(one), "marker": "", "label": None})
        drawn |= {family, *controls}
        axes.set_title(f"{title(family)}\nAUROC {areas[family]:.2f}")
        axes.set_aspect("equal")
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    grid[0][0].set_ylabel("share of active windows")
    name_x(grid[0], "share of silent windows")
    keys = _keys(drawn)
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    windows = read(tables, "embedding")[["positives", "negatives"]].sum(axis=1).max()
    caption = (
        "ROC of the scorer by embeddings: of the windows that are most similar to an explanation, "
        "the share of all active ones that they hold, against that of the silent ones, of "
        f"{windows:,.0f} unseen windows. Means over a family's explained latents of all layers at "
        "equal shares of silent windows, so that the area under a curve is the mean AUROC, which "
        "the titles give. Beside each family its controls: its untrained twin and coders trained "
        "on the untrained model; beside neurons token unigrams. Dark dots: the same latents with "
        "the explanations of all others of their layer, which must lie on the diagonal."
        + pair_note(tables)
    )
    return figure, caption


def _curve(axes: Axes, roc: pd.DataFrame, family: str, explanation: str, **style: object) -> None:
    own = roc[(roc["family"] == family) & (roc["explanation"] == explanation)]
    axes.plot(own["fpr"], own["tpr"], **style)  # pyright: ignore[reportArgumentType]


def _keys(drawn: set[str]) -> list[Line2D]:
    """Return the legend's keys for the lines, where panels name the families."""
    kinds = {
        "a family": lambda family: not is_control(family),
        "its untrained twin": is_twin,
        "coders trained on the untrained model": is_step0,
    }
    keys = []
    for label, is_kind in kinds.items():
        for family in [one for one in sorted(drawn) if is_kind(one)][:1]:
            style = {**line_style(family), "marker": "", "color": "0.25", "label": label}
            keys.append(Line2D([], [], **style))  # pyright: ignore[reportArgumentType]
    shuffled = Line2D([], [], color="0.25", ls=(0, (1, 1)), lw=0.9, label="shuffled explanations")
    return [*keys, shuffled, chance_key()]
