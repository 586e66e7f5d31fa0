"""Differences between families: unmatched, matched by firing rate, matched by activity."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from common import LABEL, ONLY_THESE, SCORERS, TWO_COLUMNS, level, pair_note, read
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

WAYS = {
    "none": ("all explained latents", "#000000", "o"),
    "rate": ("matched by firing rate", "#56B4E9", "s"),
    "activity": ("matched by active windows", "#8A5A00", "^"),
}
GAP, HEADING, STEP = 1.5, 0.85, 0.24


def draw(tables: Path) -> tuple[Figure, str]:
    """The figure and its caption."""
    contrasts = read(tables, "contrasts")
    chosen = contrasts[
        (contrasts["layers"] == "all")
        & (contrasts["latents"] == "explained")
        & (contrasts["seed"] == "all")
    ]
    rows: dict[tuple[str, str], float] = {}
    headings: dict[str, float] = {}
    y = 0.0
    for kind, group in chosen.groupby("kind", sort=False):
        headings[str(kind)] = y
        y += HEADING
        for a, b in group[["a", "b"]].drop_duplicates().itertuples(index=False):
            rows[a, b] = y
            y += 1
        y += GAP - 1
    figure, panels = plt.subplots(
        1, 2, figsize=(TWO_COLUMNS, 0.8 + 0.17 * (y + 1)), sharey=True, sharex=True
    )
    for axes, scorer in zip(panels, SCORERS):
        axes.axvline(0, color="0.2", lw=0.7, zorder=0)
        for offset, (matching, (_, color, marker)) in zip((-STEP, 0, STEP), WAYS.items()):
            for row in chosen[
                (chosen["scorer"] == scorer) & (chosen["matching"] == matching)
            ].itertuples():
                value = row.difference
                axes.errorbar(
                    value,
                    rows[row.a, row.b] + offset,
                    xerr=[[value - row.low], [row.high - value]],
                    color=color,
                    marker=marker,
                    markersize=2.8,
                    markeredgewidth=0,
                    elinewidth=0.9,
                )
        axes.set_title(scorer)
        axes.set_xlabel("difference of mean balanced accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    names = [f"{LABEL[a]} − {LABEL.get(b, b)}" for a, b in rows]
    panels[0].set_yticks(list(rows.values()), names)
    panels[0].set_ylim(max(rows.values()) + 0.6, -0.6)
    for kind, height in headings.items():
        panels[0].annotate(
            _heading(kind),
            (0, height),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=6.5,
            fontweight="bold",
        )
    keys = [
        Line2D([], [], ls="-", lw=0.9, color=color, marker=marker, mew=0, label=label)
        for label, color, marker in WAYS.values()
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    caption = (
        "Differences between families in mean rule-detection and rule-fuzzing: over all explained "
        "latents, within bins of firing rate that hold enough latents of both, and over pairs of "
        "latents that are active in as many windows. Right of zero the first family scores "
        "higher. The last group is a latent's own explanation against another latent's. "
        + ONLY_THESE.format(level=level(contrasts))
        + pair_note(tables)
    )
    return figure, caption


def _heading(kind: str) -> str:
    return {
        "primary": "Primary",
        "secondary": "Secondary",
        "untrained twin": "Against the untrained twin",
        "neurons": "Against neurons",
        "token-unigram": "Against token unigrams",
        "own shuffled": "Against shuffled explanations",
    }[kind]
