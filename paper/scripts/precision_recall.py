"""Precision and recall behind the balanced accuracies: where the families differ."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import (
    COLOR,
    GREY,
    LABEL,
    ONLY_THESE,
    SCORERS,
    TWO_COLUMNS,
    control_keys,
    is_tokens,
    level,
    marker_style,
    pair_note,
    read,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

LEVELS = (0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)


def draw(tables: Path) -> tuple[Figure, str]:
    """Return the figure and its caption."""
    means = read(tables, "means")
    chosen = means[(means["seed"] == "all") & (means["layers"] == "all")]
    chosen = chosen[(chosen["explanation"] == "own") & (chosen["latents"] == "explained")]
    figure, panels = plt.subplots(1, 2, figsize=(TWO_COLUMNS, 2.9))
    for axes, scorer in zip(panels, SCORERS):
        own = chosen[chosen["scorer"] == scorer]
        recall = own[own["measure"] == "recall"].set_index("family")
        precision = own[own["measure"] == "precision"].set_index("family")
        # Tokens are recovered wholly; they would only stretch the axes.
        shown = [f for f in recall.index if not is_tokens(f) and precision["n"][f] > 0]
        for family in shown:
            _point(axes, recall.loc[family], precision.loc[family], family)
        axes.margins(0.12)
        _accuracies(axes)
        _labels(axes, recall["mean"][shown], precision["mean"][shown])
        axes.set_title(scorer)
        axes.set_xlabel("recall: active windows that are found")
        axes.set_ylabel("precision: found windows that are active")
    keys = control_keys(chosen["family"])
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    caption = (
        "Mean precision and recall of the rules of explained latents, on windows of which half "
        "are active (precision: of latents whose rule ever says yes). Grey: where balanced "
        "accuracies would lie if all latents of a family were alike. "
        + ONLY_THESE.format(level=level(means))
        + pair_note(tables)
    )
    return figure, caption


def _point(axes: Axes, x: pd.Series, y: pd.Series, family: str) -> None:
    axes.errorbar(
        x["mean"],
        y["mean"],
        xerr=[[x["mean"] - x["low"]], [x["high"] - x["mean"]]],
        yerr=[[y["mean"] - y["low"]], [y["high"] - y["mean"]]],
        elinewidth=0.9,
        zorder=3,
        **marker_style(family),  # pyright: ignore[reportArgumentType]
    )


def _accuracies(axes: Axes) -> None:
    """Draw lines of equal balanced accuracy b: with half of the windows active, precision p and
    recall r make 2 b = 1 + r (2 - 1 / p)."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    right, top = min(right, 1), min(top, 1)
    r = np.linspace(max(left, 0.01), right, 200)
    for b in LEVELS:
        rest = 2 - (2 * b - 1) / r
        p = np.where(rest > 0.5, 1 / np.maximum(rest, 0.5), np.nan)
        p = np.where(p <= 1, p, np.nan)
        inside = (p >= bottom) & (p <= top)
        if not inside.any():
            continue
        axes.plot(r[inside], p[inside], color="0.85", lw=0.7, zorder=0)
        last = np.flatnonzero(inside)[-1]
        axes.annotate(
            f"{b:g}",
            (r[last], p[last]),
            xytext=(1.5, 1),
            textcoords="offset points",
            fontsize=5,
            color=GREY,
            va="bottom" if r[last] < right - 1e-9 else "center",
            annotation_clip=False,
        )
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)


# Where a name may stand next to its point, in points, best first.
PLACES = [
    *(((0, 6), ("center", "bottom")), ((0, -6), ("center", "top"))),
    *(((6, 4), ("left", "bottom")), ((-6, 4), ("right", "bottom"))),
    *(((6, -4), ("left", "top")), ((-6, -4), ("right", "top"))),
    *(((0, 13), ("center", "bottom")), ((0, -13), ("center", "top"))),
    *(((6, 11), ("left", "bottom")), ((-6, 11), ("right", "bottom"))),
    *(((6, -11), ("left", "top")), ((-6, -11), ("right", "top"))),
    *(((0, 20), ("center", "bottom")), ((0, -20), ("center", "top"))),
]


def _labels(axes: Axes, x: pd.Series, y: pd.Series) -> None:
    """Write names next to the points, each where it covers least of points and other names and does
    not leave the axes."""
    figure = axes.figure
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()  # pyright: ignore[reportAttributeAccessIssue]
    place = axes.transData.transform(np.column_stack([x, y]))
    taken = [Bbox.from_bounds(a - 7, b - 7, 14, 14) for a, b in place]
    taken += [text.get_window_extent(renderer) for text in axes.texts]
    inside = axes.get_window_extent(renderer)
    for family in x.index:
        options = []
        for offset, (ha, va) in PLACES:
            text = axes.annotate(
                LABEL[family],
                (x[family], y[family]),
                xytext=offset,
                textcoords="offset points",
                ha=ha,
                va=va,
                fontsize=5.5,
                color=COLOR[family],
            )
            box = text.get_window_extent(renderer)
            covered = sum(_overlap(box, other) for other in taken)
            outside = box.width * box.height - _overlap(box, inside)
            options.append((covered + outside, text, box))
        best = min(range(len(options)), key=lambda i: (options[i][0], i))
        taken.append(options[best][2])
        for index, (_, text, _) in enumerate(options):
            if index != best:
                text.remove()


def _overlap(a: Bbox, b: Bbox) -> float:
    shared = Bbox.intersection(a, b)
    return 0 if shared is None else shared.width * shared.height
