"""Held-out loss of the models while they train, with n-gram models and the generator's bound."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from common import (
    COLOR,
    DOTS,
    GREY,
    MARKER,
    ONE_COLUMN,
    models,
    read,
    seeds,
)
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

REFERENCES = {
    "unigram": "unigram",
    "bigram": "bigram",
    "trigram": "trigram",
    "generator_bound": "generator's own choices",
}


def draw(tables: Path) -> tuple[Figure, str]:
    """Return the figure and its caption."""
    curves, ngrams, pair = (read(tables, name) for name in ("curves", "ngrams", "pair"))
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 2.5))
    begun = curves[curves["tokens"] > 0]
    shown = models(curves["model"])
    # A model that was taken over has one row, at no tokens: a level and no curve.
    taken = [model for model in shown if not (begun["model"] == model).any()]
    for model, style in shown.items():
        color, named = COLOR[model], f"{model} feedforward"
        if model in taken:
            loss = curves.loc[curves["model"] == model, "valid_loss"].iloc[0]
            axes.axhline(loss, color=color, ls=style, label=named, lw=1.1)
            continue
        own = begun[begun["model"] == model]
        for index, (seed, run) in enumerate(own.groupby("seed")):
            label = named if index == 0 else None
            axes.plot(run["tokens"], run["valid_loss"], color=color, ls=style, label=label, lw=1.1)
            matched = (pair["seed"] == seed) & (pair["model"] == model)
            step = pair.loc[matched, "step"].iloc[0]
            at = run[run["step"] == step]
            axes.plot(
                at["tokens"],
                at["valid_loss"],
                marker=MARKER[model],
                color=color,
                markerfacecolor="white",
                ls="",
                zorder=4,
            )
    for row in ngrams.itertuples():
        bound = row.reference == "generator_bound"
        axes.axhline(row.loss, color=GREY, lw=0.7, ls="-" if bound else DOTS, zorder=0)
        axes.annotate(
            REFERENCES[row.reference],
            (0.01, row.loss),
            xycoords=("axes fraction", "data"),
            xytext=(0, 1.5),
            textcoords="offset points",
            color=GREY,
            fontsize=6,
        )
    if not begun.empty:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(begun["tokens"].min(), begun["tokens"].max() * 1.15)
        axes.set_xlabel("training tokens")
    else:
        axes.set_xticks([])
    drawn = curves[(curves["tokens"] > 0) | curves["model"].isin(taken)]["valid_loss"]
    low, high = min(drawn.min(), ngrams["loss"].min()), drawn.max()
    if begun.empty:
        high = max(high, ngrams["loss"].max())
    axes.set_ylim(max(0, low - 0.3), high + 0.2)
    axes.set_ylabel("held-out loss (nats per token)")
    axes.legend(loc="upper right")
    return figure, _caption(
        curves, list(shown), taken, bound="generator_bound" in set(ngrams["reference"])
    )


def _caption(curves: pd.DataFrame, shown: list[str], taken: list[str], *, bound: bool) -> str:
    named = f"Held-out loss of the {' and the '.join(shown)} transformer"
    if taken == shown:
        said = f"{named}, taken over as {'it is' if len(shown) == 1 else 'they are'}."
    else:
        read_at = "paired at equal loss" if len(shown) > 1 else "read"
        said = (
            f"{named} during training ({seeds(curves)}). "
            f"Hollow markers: the checkpoints that were {read_at}."
        )
        if taken:
            said += f" The {taken[0]} one was taken over as it is."
    said += " Dotted: interpolated n-gram models of the same text"
    if bound:
        said += "; solid grey: the generator's own choices, an upper bound of the text's entropy"
    return f"{said}."
