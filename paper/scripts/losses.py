"""Held-out loss of the models while they train, beside n-gram models and the generator's bound."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from common import COLOR, GREY, ONE_COLUMN, models, read, seeds
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

REFERENCES = {
    "unigram": "unigram",
    "bigram": "bigram",
    "trigram": "trigram",
    "generator_bound": "generator's own choices",
}


def draw(tables: Path) -> tuple[Figure, str]:
    """The figure and its caption."""
    curves, ngrams, pair = (read(tables, name) for name in ("curves", "ngrams", "pair"))
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 2.5))
    begun = curves[curves["tokens"] > 0]
    shown = models(curves["model"])
    for model, style in shown.items():
        own = begun[begun["model"] == model]
        for index, (seed, run) in enumerate(own.groupby("seed")):
            label = f"{model} feedforward" if index == 0 else None
            color = COLOR[model]
            axes.plot(run["tokens"], run["valid_loss"], color=color, ls=style, label=label, lw=1.1)
            step = pair.loc[pair["seed"] == seed, f"{model}_step"].iloc[0]
            at = run[run["step"] == step]
            axes.plot(
                at["tokens"],
                at["valid_loss"],
                marker="s" if model == "dense" else "o",
                color=color,
                markerfacecolor="white",
                ls="",
                zorder=4,
            )
    left, right = begun["tokens"].min(), begun["tokens"].max()
    for row in ngrams.itertuples():
        bound = row.reference == "generator_bound"
        axes.axhline(row.loss, color=GREY, lw=0.7, ls="-" if bound else (0, (1, 1.5)), zorder=0)
        axes.annotate(
            REFERENCES[row.reference],
            (0.01, row.loss),
            xycoords=("axes fraction", "data"),
            xytext=(0, 1.5),
            textcoords="offset points",
            color=GREY,
            fontsize=6,
        )
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(left, right * 1.15)
    low = min(begun["valid_loss"].min(), ngrams["loss"].min())
    axes.set_ylim(max(0, low - 0.3), begun["valid_loss"].max() + 0.2)
    axes.set_xlabel("training tokens")
    axes.set_ylabel("held-out loss (nats per token)")
    axes.legend(loc="upper right")
    read_at = "paired at equal loss" if len(shown) > 1 else "read"
    caption = (
        f"Held-out loss of the {' and the '.join(shown)} transformer during training "
        f"({seeds(curves)}). Hollow markers: the checkpoints that were {read_at}. "
        "Dotted: interpolated n-gram models of the same text; solid grey: the generator's own "
        "choices, an upper bound of the text's entropy."
    )
    return figure, caption
