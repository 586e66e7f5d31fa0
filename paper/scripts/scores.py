"""Distribution of rule-detection and rule-fuzzing by family, controls beside each family."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import (
    COLOR,
    GREY,
    LABEL,
    MARKER,
    ONLY_THESE,
    SCORERS,
    TWO_COLUMNS,
    is_twin,
    level,
    pair_note,
    read,
    rows_of,
    trained,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Half-width of a violin and the standard deviation of its kernel, in units of the score.
HALF, KERNEL = 0.36, 0.02
GRID = np.linspace(0, 1, 400)


def draw(tables: Path) -> tuple[Figure, str]:
    """The figure and its caption."""
    latents, means = read(tables, "latents"), read(tables, "means")
    means = means[means["seed"] == "all"]
    rows = rows_of(set(means["family"]))
    figure, panels = plt.subplots(
        1, 2, figsize=(TWO_COLUMNS, 0.7 + 0.27 * max(rows.values())), sharey=True, sharex=True
    )
    for axes, scorer in zip(panels, SCORERS):
        chosen = means[(means["scorer"] == scorer) & (means["layers"] == "all")]
        chosen = chosen[chosen["latents"] == "explained"]
        axes.axvline(0.5, color=GREY, lw=0.7, ls=(0, (1, 1.5)), zorder=0)
        for family, y in rows.items():
            own = latents.loc[latents["family"] == family, scorer].dropna().to_numpy()
            _violin(axes, own, y, family)
            for row in chosen[chosen["family"] == family].itertuples():
                _mean(axes, row, y, family)
        axes.set_title(scorer)
        axes.set_xlabel("balanced accuracy on unseen windows")
        axes.grid(axis="x")
    lowest = latents[list(SCORERS)].min(axis=None)
    panels[0].set_xlim(max(0, min(0.42, np.floor(lowest * 20) / 20)), 1.02)
    panels[0].set_yticks(list(rows.values()), [LABEL[family] for family in rows])
    panels[0].set_ylim(max(rows.values()) + 0.6, -0.6)
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    figure.legend(handles=_keys(), loc="outside lower center", ncols=4)
    caption = (
        "Scores of explained latents: balanced accuracy of a short rule, parsed back from the "
        "explanation, at telling which unseen windows (rule-detection) or marked positions "
        "(rule-fuzzing) the latent is active in. Violins: distribution over latents; filled "
        "markers: means; hollow markers: means of untrained twins; crosses: the same latents with "
        "shuffled explanations, which must lie at chance (dotted). "
        + ONLY_THESE.format(level=level(means))
        + pair_note(tables)
    )
    return figure, caption


def _violin(axes: Axes, values: np.ndarray, y: float, family: str) -> None:
    """Gaussian kernel density, with the quartiles as a thin line below the mean's marker."""
    if len(values) < 2:
        return
    color = COLOR[trained(family)]
    density = np.exp(-0.5 * ((GRID[:, None] - values) / KERNEL) ** 2).sum(axis=1)
    height = HALF * density / density.max()
    seen = height > 0.004
    axes.fill_between(
        GRID,
        y - height,
        y + height,
        where=list(seen),
        facecolor=color if not is_twin(family) else "white",
        alpha=0.28 if not is_twin(family) else 1,
        lw=0,
    )
    for side in (-1, 1):
        axes.plot(
            np.where(seen, GRID, np.nan), y + side * height, color=color, lw=0.5, ls="-", zorder=2
        )


def _mean(axes: Axes, row, y: float, family: str) -> None:
    shuffled = row.explanation == "shuffled"
    color = "0.25" if shuffled else COLOR[trained(family)]
    axes.errorbar(
        row.mean,
        y,
        xerr=[[row.mean - row.low], [row.high - row.mean]],
        color=color,
        marker="x" if shuffled else MARKER[trained(family)],
        markersize=3.5 if shuffled else 4.5,
        markerfacecolor="white" if is_twin(family) else color,
        markeredgecolor=color if shuffled or is_twin(family) else "white",
        markeredgewidth=0.8 if shuffled or is_twin(family) else 0.4,
        elinewidth=1.1,
        zorder=4,
    )


def _keys() -> list[Line2D]:
    plain = {"ls": "", "color": "0.25"}
    return [
        Line2D([], [], marker="o", **plain, label="mean of a family"),
        Line2D([], [], marker="o", markerfacecolor="white", **plain, label="of an untrained twin"),
        Line2D([], [], marker="x", **plain, label="with shuffled explanations"),
        Line2D([], [], color=GREY, lw=0.7, ls=(0, (1, 1.5)), label="chance"),
    ]
