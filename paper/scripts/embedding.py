"""The scorer by embeddings by family, and whether it agrees with the judge of rules."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import (
    DOTS,
    GREY,
    ONLY_THESE,
    SCORERS,
    TWO_COLUMNS,
    level,
    marker_style,
    mean_keys,
    mean_marker,
    name_rows,
    pair_note,
    read,
    row_axes,
    rows_of,
    violin,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Marker and place in a family's row of each scorer by rules.
AGREEMENT = {SCORERS[0]: ("o", -0.17), SCORERS[1]: ("s", 0.17)}


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where no latent has a score."""
    latents, means = read(tables, "embedding"), read(tables, "embedding_means")
    if latents["embedding"].isna().all():
        return None
    agreement = read(tables, "embedding_agreement")
    means = means[(means["seed"] == "all") & (means["layers"] == "all")]
    means = means[means["latents"] == "explained"]
    rows = rows_of(set(means["family"]))
    figure, (scores, relation) = plt.subplots(
        1,
        2,
        figsize=(TWO_COLUMNS, 0.85 + 0.27 * max(rows.values())),
        sharey=True,
        width_ratios=(3, 2),
    )
    scores.axvline(0.5, color=GREY, lw=0.7, ls=DOTS, zorder=0.6)
    for family, y in rows.items():
        own = latents.loc[latents["family"] == family, "embedding"].dropna().to_numpy()
        violin(scores, own, y, family)
        for row in means[means["family"] == family].itertuples():
            mean_marker(scores, row, y, family)
    low, high = np.nanmin(latents["embedding"]), np.nanmax(latents["embedding"])
    scores.set_xlim(np.floor(low * 20) / 20 - 0.02, np.ceil(high * 20) / 20 + 0.02)
    scores.set_xlabel("AUROC of active against silent windows")
    scores.set_title("similarity to the explanation")
    _relation(relation, agreement, rows)
    name_rows(scores, rows)
    for axes in (scores, relation):
        row_axes(axes)
    figure.legend(handles=[*mean_keys(rows), *_keys()], loc="outside lower center", ncols=3)
    windows = int(latents[["positives", "negatives"]].sum(axis=1).max())
    caption = (
        "A second opinion on the explanations: a small model of sentences ranks "
        f"{windows:,} unseen windows by the cosine similarity of their embedding to that of the "
        "explanation. Left: AUROC of the windows in which a latent is active against all others. "
        "Violins: distribution over latents; filled markers: means; hollow markers: means of "
        "untrained twins; crosses: the same latents with shuffled explanations. Right: Spearman's "
        "rank correlation over a family's latents with the scores of the judge of rules, "
        "rule-detection and rule-fuzzing; grey: zero. The scale has nothing in common with that "
        "of other scorers. "
        + ONLY_THESE.format(level=level(means)).replace("bootstrap intervals", "intervals")
        + pair_note(tables)
    )
    return figure, caption


def _relation(axes: Axes, agreement: pd.DataFrame, rows: dict[str, float]) -> None:
    """Draw rank correlations by family."""
    axes.axvline(0, color=GREY, lw=0.7, zorder=0)
    for row in agreement.itertuples():
        marker, offset = AGREEMENT[row.scorer]
        axes.errorbar(
            row.correlation,
            rows[row.family] + offset,
            xerr=[[row.correlation - row.low], [row.high - row.correlation]],
            elinewidth=0.9,
            **{**marker_style(row.family, size=3.5), "marker": marker},
        )
    axes.set_xlabel("Spearman's rank correlation")
    axes.set_title("agreement with the judge of rules")


def _keys() -> list[Line2D]:
    return [
        Line2D([], [], ls="", color="0.25", marker=marker, mew=0, markersize=3.5, label=scorer)
        for scorer, (marker, _) in AGREEMENT.items()
    ]
