"""Every known concept by family: F1 of the best latent, and of the best set of tokens."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from common import FAMILIES, LABEL, ONE_COLUMN, is_tokens, read, rows_of, seeds
from matplotlib.figure import Figure


def draw(tables: Path) -> tuple[Figure, str] | None:
    """Return the figure and its caption; None where the corpus has no labels."""
    concepts = read(tables, "concepts")
    concepts = concepts[concepts["kind"] != "absent"]
    if concepts.empty:
        return None
    tokens = concepts.drop_duplicates("concept").set_index("concept")
    tokens = tokens.sort_values("token_set_f1", ascending=False)
    families = [family for family in rows_of(set(concepts["family"])) if _learned(family)]
    by_family = concepts.pivot_table(index="concept", columns="family", values="f1")
    by_family = by_family.reindex(index=tokens.index, columns=families)
    values = np.column_stack([tokens["token_set_f1"], by_family])
    lexical = int((tokens["kind"] == "lexical").sum())
    figure, axes = plt.subplots(figsize=(ONE_COLUMN, 1.6 + 0.115 * len(tokens)))
    # A gap sets the tokens' column apart, another one lexical from contextual concepts.
    gap = 0.4
    x = np.concatenate([[0, 1], 1 + gap + np.arange(len(families) + 1)])
    y = np.concatenate([np.arange(lexical + 1), gap + np.arange(lexical, len(tokens) + 1)])
    grid = np.insert(values, 1, np.nan, axis=1)
    grid = np.insert(grid, lexical, np.nan, axis=0)
    mesh = axes.pcolormesh(x, y, grid, cmap="cividis", vmin=0, vmax=1, lw=0.4, edgecolor="white")
    centre_x, centre_y = (x[:-1] + x[1:]) / 2, (y[:-1] + y[1:]) / 2
    labels = ["set of tokens", *(LABEL[family] for family in families)]
    axes.set_xticks(np.delete(centre_x, 1), labels, rotation=60, ha="left", rotation_mode="anchor")
    names = [str(name).replace("_", " ") for name in tokens.index]
    axes.set_yticks(np.delete(centre_y, lexical), names, fontsize=5.5)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_ylim(y[-1], 0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", fraction=0.03, pad=0.02)
    bar.set_label("F1 on unseen text")
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    # A bar of polygons rather than a picture.
    bar.solids.set_rasterized(False)
    bar.solids.set_edgecolor("face")
    bar.solids.set_linewidth(0.1)
    caption = (
        "F1 of the latent that recovers each known concept best, of all latents of a family, and "
        "of the best set of tokens; latent, threshold and set are chosen on other text than they "
        f"are measured on ({seeds(concepts)}). Above the gap lexical concepts, below contextual "
        "ones."
    )
    return figure, caption


def _learned(family: str) -> bool:
    """Tell whether anything of a family's model or coders is trained; tokens are drawn anyway."""
    row = FAMILIES[family]
    return not is_tokens(family) and (row["trained"] or not row["untrained_model"])
