"""Distribution of rule-detection and rule-fuzzing by family, controls next to each family."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import (
    ACCURACY,
    DOTS,
    GREY,
    ONLY_THESE,
    OVER_LAYERS,
    SCORERS,
    TWO_COLUMNS,
    level,
    mean_keys,
    mean_marker,
    name_rows,
    pair_note,
    read,
    row_axes,
    rows_of,
    violin,
)
from matplotlib.figure import Figure


def draw(tables: Path) -> tuple[Figure, str]:
    """Return the figure and its caption."""
    latents, means = read(tables, "latents"), read(tables, "means")
    means = means[(means["seed"] == "all") & (means["measure"] == ACCURACY)]
    rows = rows_of(set(means["family"]))
    figure, panels = plt.subplots(
        1, 2, figsize=(TWO_COLUMNS, 0.7 + 0.27 * max(rows.values())), sharey=True, sharex=True
    )
    for axes, scorer in zip(panels, SCORERS):
        chosen = means[(means["scorer"] == scorer) & (means["layers"] == "all")]
        chosen = chosen[chosen["latents"] == "explained"]
        axes.axvline(0.5, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
        for family, y in rows.items():
            own = latents.loc[latents["family"] == family, scorer].dropna().to_numpy()
            violin(axes, own, y, family)
            for row in chosen[chosen["family"] == family].itertuples():
                mean_marker(axes, row, y, family)
        axes.set_title(scorer)
        axes.set_xlabel("balanced accuracy on unseen windows")
        row_axes(axes)
    lowest = latents[list(SCORERS)].min(axis=None)
    panels[0].set_xlim(max(0, min(0.42, np.floor(lowest * 20) / 20)), 1.02)
    name_rows(panels[0], rows)
    keys = mean_keys(rows)
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    caption = (
        "Scores of explained latents: balanced accuracy of a short rule, parsed back from the "
        "explanation, at telling which unseen windows (rule-detection) or marked positions "
        "(rule-fuzzing) the latent is active in. Violins: distribution over latents; filled "
        "markers: means; hollow markers: means of untrained twins; half filled: of its model at an "
        "earlier step; crosses: the same latents with shuffled explanations, which must "
        "lie at chance (dotted). "
        + OVER_LAYERS
        + ONLY_THESE.format(level=level(means))
        + pair_note(tables)
    )
    return figure, caption
