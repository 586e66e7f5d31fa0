"""Known concepts that single latents recover, by family, with random directions."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import (
    COLOR,
    DOTS,
    GREY,
    LABEL,
    TWO_COLUMNS,
    line_style,
    marker_style,
    read,
    row_axes,
    rows_of,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where the corpus has no labels."""
    summary = read(tables, "concept_summary")
    if summary.empty:
        return None
    summary = summary[summary["seed"] == "all"]
    rows = rows_of(set(summary["family"]))
    figure, panels = plt.subplots(2, 2, figsize=(TWO_COLUMNS, 1.0 + 0.34 * max(rows.values())))
    (lexical, contextual), (recovered, latents) = panels
    for axes, kind in ((lexical, "lexical"), (contextual, "contextual")):
        part = summary[summary["kind"] == kind]
        _panel(axes, part, "f1", rows)
        if len(part):
            best = part["token_set_f1"].iloc[0]
            axes.axvline(best, color=GREY, lw=0.9, ls=DOTS, zorder=0.6)
        axes.set_xlim(0, 1)
        axes.set_xlabel("mean F1 of a concept's best latent")
        axes.set_title(f"{int(part['concepts'].max())} {kind} concepts")
    _panel(recovered, summary[summary["kind"] == "all"], "recovered", rows)
    first = summary.iloc[0]
    recovered.set_xlim(left=-0.3)
    recovered.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    recovered.set_xlabel(f"concepts recovered at F1 ≥ {first['recovered_from']:g}")
    for axes in (lexical, contextual, recovered):
        labels = ["" if axes is contextual else LABEL[family] for family in rows]
        axes.set_yticks(list(rows.values()), labels)
        axes.set_ylim(max(rows.values()) + 0.6, -0.6)
        row_axes(axes)
    _survival(latents, read(tables, "concept_latents"), list(rows))
    figure.legend(handles=_keys(), loc="outside lower center", ncols=4)
    caption = (
        "Known concepts that single latents recover on unseen text, by a threshold; latent and "
        "threshold are chosen on other text. Lexical concepts are those that a set of tokens "
        "recovers, too. Markers: the best of an equal number of latents "
        f"({first['candidates']:,} of each family), the mean over {first['draws']} draws of them "
        f"with the central {100 * first['confidence']:g} % of the draws; crosses: the best of all "
        "latents. Hollow: untrained twins, and random directions in the input of the sparse "
        "model's feedforwards, the null of the native latents as untrained coders are that of "
        "trained ones; half filled: of its model at an earlier step. Dotted: "
        "the best sets of tokens. Last panel: every latent with the concept "
        "that it recovers best; dashed: untrained twins and random directions. The draws say how "
        "much hangs on which latents a family has, and describe these trained models only."
    )
    return figure, caption


def _survival(axes: Axes, bins: pd.DataFrame, families: list[str]) -> None:
    """Draw the share of a family's latents at or above each F1."""
    for family in families:
        own = bins[bins["family"] == family].groupby("f1_low")["share"].sum()
        above = own[::-1].cumsum()[::-1]
        style = line_style(family) | {"marker": "", "label": None}
        axes.step(above.index, above, where="post", **style)  # pyright: ignore[reportArgumentType]
    axes.set_yscale("log")
    axes.set_ylim(top=1)
    axes.set_xlim(0, 1)
    axes.grid(axis="both")
    axes.set_xlabel("F1 for the concept that it recovers best")
    axes.set_ylabel("share of latents at or above")


def _panel(axes: Axes, part: pd.DataFrame, measure: str, rows: dict[str, float]) -> None:
    for row in part.itertuples():
        color, y = COLOR[row.family], rows[row.family]
        value = getattr(row, measure)
        low, high = getattr(row, f"{measure}_low"), getattr(row, f"{measure}_high")
        axes.errorbar(
            value,
            y,
            xerr=[[max(0, value - low)], [max(0, high - value)]],
            **marker_style(row.family),
            elinewidth=1.1,
            zorder=3,
        )
        by_all = getattr(row, f"{measure}_by_all")
        axes.plot(by_all, y, marker="x", ls="", color=color, markersize=3.5, mew=0.9, zorder=4)


def _keys() -> list[Line2D]:
    plain = {"ls": "", "color": "0.25"}
    return [
        Line2D([], [], marker="o", **plain, label="best of equally many latents"),
        Line2D(
            [],
            [],
            marker="o",
            markerfacecolor="white",
            **plain,
            label="untrained, or random directions",
        ),
        Line2D([], [], marker="x", **plain, label="best of all latents"),
        Line2D([], [], color=GREY, lw=0.9, ls=DOTS, label="best set of tokens"),
    ]
