"""Score by layer: latents, and means of layers, each family with its controls."""

from __future__ import annotations

from pathlib import Path

import small_multiples
from common import (
    COLOR,
    ONLY_THESE,
    chance_key,
    control_keys,
    level,
    pair_note,
    read,
)
from matplotlib.figure import Figure

# Shares of a family's latents that the bands hold, and how dense they are drawn.
BANDS = {0.9: 0.12, 0.5: 0.2}


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where there is no family to draw."""
    latents, layers, means = (read(tables, name) for name in ("latents", "layer_means", "means"))
    made = small_multiples.panels(layers["family"], 2.9, "layer")
    if made is None:
        return None
    figure, panels = made
    drawn = set()
    for axes, scorer, family, controls in panels:
        own = latents[(latents["family"] == family) & latents[scorer].notna()]
        by_layer = own.groupby("layer")[scorer]
        for share, alpha in BANDS.items():
            tail = (1 - share) / 2
            low, high = by_layer.quantile(tail), by_layer.quantile(1 - tail)
            color = COLOR[family]
            axes.fill_between(low.index, low, high, color=color, alpha=alpha, lw=0)
        for one in (*controls, family):
            rows = layers[(layers["family"] == one) & (layers["scorer"] == scorer)]
            small_multiples.means(axes, rows["layer"], rows, one)
        drawn |= {family, *controls}
        axes.set_xticks(sorted(layers["layer"].unique()))
        axes.set_ylim(0.4, 1.02)
    keys = control_keys(drawn, chance_key())
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    caption = (
        "Scores of explained latents by layer: means, and bands that hold the central "
        f"{' and '.join(f'{100 * share:g} %' for share in sorted(BANDS))} of a family's latents; "
        "beside them means of its untrained twin (hollow) and of its model at an "
        "earlier step (half filled). " + ONLY_THESE.format(level=level(means)) + pair_note(tables)
    )
    return figure, caption
