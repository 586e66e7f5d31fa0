"""Known concepts that single latents recover, by family, beside random directions."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import COLOR, GREY, LABEL, MARKER, TWO_COLUMNS, is_twin, read, trained
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# Top to bottom: each family with its null, then the other controls; a gap between groups.
GROUPS = (
    ("native", "random-directions", "random-native"),
    ("transcoder", "skip-transcoder", "random-transcoder"),
    ("sae", "random-sae"),
    ("neurons", "token-unigram"),
)
GAP = 0.55
MEASURES = {
    "f1": "mean F1 of a concept's best latent",
    "recovered": "concepts recovered",
}
KINDS = ("lexical", "contextual")


def draw(tables: Path) -> tuple[Figure, str] | None:
    """The figure and its caption; nothing where the corpus has no labels."""
    summary = read(tables, "concept_summary")
    if summary.empty:
        return None
    summary = summary[summary["seed"] == "all"]
    rows = _rows(set(summary["family"]))
    figure, panels = plt.subplots(
        2, 2, figsize=(TWO_COLUMNS, 1.0 + 0.34 * max(rows.values())), sharey=True, sharex="row"
    )
    for line, (measure, label) in zip(panels, MEASURES.items()):
        for axes, kind in zip(line, KINDS):
            _panel(axes, summary[summary["kind"] == kind], measure, rows)
            axes.set_xlabel(label)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        line[0].set_yticks(list(rows.values()), [LABEL[family] for family in rows])
        line[0].set_ylim(max(rows.values()) + 0.6, -0.6)
    for axes in panels[0]:
        axes.set_xlim(0, 1)
    for axes, kind in zip(panels[0], KINDS):
        count = int(summary.loc[summary["kind"] == kind, "concepts"].max())
        axes.set_title(f"{count} {kind} concepts")
    for axes in panels[1]:
        axes.set_xlim(left=-0.3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(handles=_keys(), loc="outside lower center", ncols=4)
    first = summary.iloc[0]
    caption = (
        "Known concepts that single latents recover on unseen text, by a threshold; latent and "
        "threshold are chosen on other text. Lexical concepts are those that a set of tokens "
        "recovers, too. Markers: the best of an equal number of latents "
        f"({first['candidates']:,} of each family), the mean over {first['draws']} draws of them "
        f"with the central {100 * first['confidence']:g} % of the draws; crosses: the best of all "
        "latents. Hollow: untrained twins, and random directions in the input of the sparse "
        "model's feedforwards, the null of the native latents as untrained coders are that of "
        "trained ones. Dotted: the best sets of tokens. The draws say how much hangs on which "
        "latents a family has, and describe these trained models only."
    )
    return figure, caption


def _rows(present: set[str]) -> dict[str, float]:
    rows: dict[str, float] = {}
    y = 0.0
    for group in GROUPS:
        inside = [family for family in group if family in present]
        for family in inside:
            rows[family] = y
            y += 1
        y += GAP * bool(inside)
    return rows


def _panel(axes: Axes, part: pd.DataFrame, measure: str, rows: dict[str, float]) -> None:
    if measure == "f1" and len(part):
        axes.axvline(part["token_set_f1"].iloc[0], color=GREY, lw=0.9, ls=(0, (1, 1.5)), zorder=0)
    for row in part.itertuples():
        color, y = COLOR[trained(row.family)], rows[row.family]
        value = getattr(row, measure)
        low, high = getattr(row, f"{measure}_low"), getattr(row, f"{measure}_high")
        axes.errorbar(
            value,
            y,
            xerr=[[max(0, value - low)], [max(0, high - value)]],
            color=color,
            marker=MARKER[trained(row.family)],
            markersize=4.5,
            markerfacecolor="white" if is_twin(row.family) else color,
            markeredgecolor=color if is_twin(row.family) else "white",
            markeredgewidth=0.8 if is_twin(row.family) else 0.4,
            elinewidth=1.1,
            zorder=3,
        )
        by_all = getattr(row, f"{measure}_by_all")
        axes.plot(by_all, y, marker="x", ls="", color=color, markersize=3.5, mew=0.9, zorder=4)


def _keys() -> list[Line2D]:
    plain = {"ls": "", "color": "0.25"}
    return [
        Line2D([], [], marker="o", **plain, label="best of equally many latents"),
        Line2D([], [], marker="o", markerfacecolor="white", **plain, label="random directions"),
        Line2D([], [], marker="x", **plain, label="best of all latents"),
        Line2D([], [], color=GREY, lw=0.9, ls=(0, (1, 1.5)), label="best set of tokens"),
    ]
