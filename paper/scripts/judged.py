"""Scores by a language model that has qualified as a judge: accuracies and probabilities by family,
differences between families, and ROC curves. Where none has judged, or the one that did has not
qualified, there is no figure."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import (
    COLOR,
    DOTS,
    GREY,
    ONLY_THESE,
    OVER_LAYERS,
    TWO_COLUMNS,
    is_twin,
    legend,
    level,
    line_style,
    mean_keys,
    mean_marker,
    name_rows,
    pair_note,
    read,
    row_axes,
    rows_of,
    violin,
)
from contrasts import differences, margin_note
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Scorers whose answers are right or wrong, and what a guess gets of each; None: it depends.
CLASSIFIERS = {"detection": 0.5, "fuzzing": 0.5, "intruder": None}
# Half of the height of a family's densities, and their kernel's standard deviation, in units of
# probability.
HALF, KERNEL = 0.4, 0.02
GRID = np.linspace(0, 1, 201)


def draw(tables: Path) -> dict[str, tuple[Figure, str]] | None:
    """Return the figures and their captions by name; None where no judge has qualified."""
    if not (tables / "judged.csv").exists():
        return None
    means = read(tables, "judged_means")
    figures = {"judged": _accuracies(read(tables, "judged"), means, _noise(tables))}
    if (tables / "judged_contrasts.csv").exists():
        figures["judged_contrasts"] = _contrasts(tables)
    if (tables / "judged_probabilities.csv").exists():
        given = read(tables, "judged_probabilities")
        figures["judged_probabilities"] = _probabilities(given)
        figures["judged_roc"] = _roc(given, means)
    return {name: drawn for name, drawn in figures.items() if drawn is not None}


def _noise(tables: Path) -> str:
    """Return a sentence on the noise floor, or nothing."""
    if not (tables / "judged_noise.csv").exists():
        return ""
    noise = read(tables, "judged_noise")
    noise = noise[(noise["family"] == "all") & (noise["measure"] == "accuracy")]
    said = [
        f"{row.sd:.3f} in {row.scorer} "
        + ("(other windows)" if row.asked == "redrawn" else "(the same windows, another order)")
        for row in noise.itertuples()
    ]
    return f" Asked again, a latent's score has a standard deviation of {', '.join(said)}."


def _panels(scorers: list[str], rows: dict[str, float], extra: float) -> tuple[Figure, list[Axes]]:
    figure, panels = plt.subplots(
        1,
        len(scorers),
        figsize=(TWO_COLUMNS, extra + 0.27 * max(*rows.values(), 1)),
        sharey=True,
        squeeze=False,
    )
    panels = list(panels[0])
    name_rows(panels[0], rows)
    for axes, scorer in zip(panels, scorers):
        axes.set_title(scorer)
        row_axes(axes)
    return figure, panels


def _accuracies(
    latents: pd.DataFrame, means: pd.DataFrame, noise: str
) -> tuple[Figure, str] | None:
    means = means[means["measure"] == "accuracy"]
    scorers = [scorer for scorer in CLASSIFIERS if (means["scorer"] == scorer).any()]
    if not scorers:
        return None
    rows = rows_of(set(means["family"]))
    figure, panels = _panels(scorers, rows, 0.85)
    for axes, scorer in zip(panels, scorers):
        chance = CLASSIFIERS[scorer]
        if chance is not None:
            axes.axvline(chance, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
        own = latents[latents["scorer"] == scorer].dropna(subset=["accuracy"])
        for family, y in rows.items():
            violin(axes, own.loc[own["family"] == family, "accuracy"].to_numpy(), y, family)
            for row in means[
                (means["scorer"] == scorer) & (means["family"] == family)
            ].itertuples():
                mean_marker(axes, row, y, family)
        low = min(own["accuracy"].min(), 0.42 if chance is not None else 1)
        axes.set_xlim(max(0, np.floor(low * 20) / 20), 1.02)
        axes.set_xlabel("balanced accuracy" if chance is not None else "accuracy")
    figure.legend(handles=mean_keys(rows), loc="outside lower center", ncols=4)
    missing = means.loc[means["explanation"] == "own", "missing"]
    caption = (
        "Scores of explained latents by a language model that has qualified as a judge, on unseen "
        "windows. detection: which windows hold what the explanation says; fuzzing: in which are "
        "the marked tokens those that it means; intruder: which window does not belong to the "
        "others, without the explanation. Violins: distribution over latents; filled markers: "
        "means; hollow markers: means of untrained twins; crosses: the same latents with "
        "explanations of others, which must lie at chance (dotted). Missing answers are left out: "
        f"{100 * missing.min():.1f} to {100 * missing.max():.1f} % by family and scorer."
        f"{noise} " + ONLY_THESE.format(level=level(means))
    )
    return figure, caption


def _contrasts(tables: Path) -> tuple[Figure, str] | None:
    contrasts = read(tables, "judged_contrasts")
    contrasts = contrasts[(contrasts["seed"] == "all") & (contrasts["measure"] == "accuracy")]
    scorers = [scorer for scorer in CLASSIFIERS if (contrasts["scorer"] == scorer).any()]
    if not scorers:
        return None
    figure = differences(contrasts, scorers, "difference of mean accuracy")
    caption = (
        "Differences between families in the mean accuracy of a language model that has qualified "
        "as a judge, over the latents that it has judged, within bins of firing rate that hold "
        "enough latents of both, and over pairs of latents that are active in as many windows. "
        f"Right of zero the first family scores higher. {margin_note(contrasts)}"
        + OVER_LAYERS
        + ONLY_THESE.format(level=level(contrasts))
        + pair_note(tables)
    )
    return figure, caption


def _probabilities(given: pd.DataFrame) -> tuple[Figure, str]:
    scorers = [scorer for scorer in CLASSIFIERS if (given["scorer"] == scorer).any()]
    rows = rows_of(set(given["family"]))
    figure, panels = _panels(scorers, rows, 0.85)
    for axes, scorer in zip(panels, scorers):
        for family, y in rows.items():
            own = given[(given["scorer"] == scorer) & (given["family"] == family)]
            _densities(axes, own, y, family)
        axes.set_xlabel("probability that the judge gives to yes")
        axes.set_xlim(0, 1)
    keys = [
        Line2D([], [], color="0.25", lw=4, alpha=0.5, label="windows with the latent (upwards)"),
        Line2D([], [], color="0.25", lw=0.8, label="windows without (downwards)"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=2)
    caption = (
        "How probable a language model that has qualified as a judge finds it that a window holds "
        "what the explanation says (detection), or that the marked tokens are those that it means "
        "(fuzzing), by family. Filled, upwards: windows in which the latent is active; "
        "outlined, downwards: windows in which it is not. Gaussian kernel densities over all "
        "windows of all latents, each of its own scale; a judge that can tell has them at "
        "opposite ends."
    )
    return figure, caption


def _densities(axes: Axes, own: pd.DataFrame, y: float, family: str) -> None:
    color = COLOR[family]
    middle = (own["low"] + own["high"]).to_numpy() / 2
    kernel = np.exp(-0.5 * ((GRID[:, None] - middle) / KERNEL) ** 2)
    axes.axhline(y, color=color, lw=0.4, zorder=1)
    for kind, side in (("positives", -1), ("negatives", 1)):
        density = kernel @ own[kind].to_numpy(float)
        if not density.any():
            continue
        # The axis points downwards.
        edge = y + side * HALF * density / density.max()
        if kind == "positives":
            axes.fill_between(GRID, y, edge, facecolor=color, alpha=0.4, lw=0)
        axes.plot(GRID, edge, color=color, lw=0.7, ls=(0, (2, 1.2)) if is_twin(family) else "-")


def _roc(given: pd.DataFrame, means: pd.DataFrame) -> tuple[Figure, str]:
    scorers = [scorer for scorer in CLASSIFIERS if (given["scorer"] == scorer).any()]
    figure, panels = plt.subplots(
        1, len(scorers), figsize=(TWO_COLUMNS, 3.6), sharey=True, squeeze=False
    )
    own = means[(means["measure"] == "auroc") & (means["explanation"] == "own")]
    for axes, scorer in zip(panels[0], scorers):
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.7, ls=DOTS, zorder=0)
        for family in rows_of(set(given["family"])):
            found = given[(given["scorer"] == scorer) & (given["family"] == family)]
            if found[["positives", "negatives"]].sum().all():
                style = {**line_style(family), "marker": ""}
                axes.plot(*_curve(found), **style)  # pyright: ignore[reportArgumentType]
        areas = own.loc[own["scorer"] == scorer, "mean"]
        span = f": AUROC {areas.min():.2f} to {areas.max():.2f}" if len(areas) else ""
        axes.set_title(f"{scorer}{span}")
        axes.set_aspect("equal")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
        axes.set_xlabel("share of windows without, said yes")
    panels[0][0].set_ylabel("share of windows with the latent, said yes")
    legend(figure, panels[0], columns=4)
    caption = (
        "ROC of a language model that has qualified as a judge, by family: of all windows of all "
        "latents, the share of those with the latent that get at least some probability, against "
        f"that of those without, from {given['low'].nunique()} bins of probability. The titles "
        "give the range over families of the mean over latents of each latent's own AUROC, which a "
        "pooled curve need not have. Dotted: chance."
    )
    return figure, caption


def _curve(found: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of negatives and of positives at or above each bin's probability."""
    found = found.sort_values("low", ascending=False)
    shares = [
        np.concatenate([[0.0], found[kind].to_numpy().cumsum() / found[kind].sum()])
        for kind in ("negatives", "positives")
    ]
    return shares[0], shares[1]
