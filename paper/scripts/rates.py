"""Score against firing rate: latents, and means of bins, each family with its controls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import small_multiples
from common import (
    GREY,
    ONLY_THESE,
    chance_key,
    control_keys,
    level,
    pair_note,
    read,
    shuffled_key,
)
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where there is no family to draw."""
    latents, rates, means = (read(tables, name) for name in ("latents", "rates", "means"))
    made = small_multiples.panels(latents["family"], 3.1, "firing rate per token")
    if made is None:
        return None
    figure, panels = made
    drawn = set()
    for axes, scorer, family, controls in panels:
        own = latents[(latents["family"] == family) & latents[scorer].notna()]
        own = own.sort_values(["rate", "seed", "layer", "latent"])
        small_multiples.points(axes, own["rate"], own[scorer], family)
        here = rates[rates["scorer"] == scorer]
        shuffled = here[(here["family"] == family) & (here["explanation"] == "shuffled")]
        axes.plot(_middle(shuffled), shuffled["mean"], ls="", marker="x", ms=2.5, color=GREY)
        for one in (*controls, family):
            bins = here[(here["family"] == one) & (here["explanation"] == "own")]
            small_multiples.means(axes, _middle(bins), bins, one)
        drawn |= {family, *controls}
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0.36, 1.02)
    keys = control_keys(drawn, shuffled_key(), chance_key())
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    caption = (
        "Scores of explained latents against their firing rate: single latents (points, a sample), "
        "and means over bins of half a decade with at least five latents, the family's own and "
        "those of its untrained twin (hollow) and of coders trained on the untrained model (half "
        "filled); beside neurons token unigrams (grey). Crosses: with shuffled explanations. "
        + ONLY_THESE.format(level=level(means))
        + pair_note(tables)
    )
    return figure, caption


def _middle(bins: pd.DataFrame) -> pd.Series:
    return np.sqrt(bins["rate_low"] * bins["rate_high"])
