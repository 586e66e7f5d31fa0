"""The grid: scores against what an explanation's latents cost in loss, over k, tokens, width and
kinds of latents; and whether the order of families holds.

`python paper/scripts/grid.py paper/results` writes `grid/points.csv` and `grid/orders.csv` there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import (
    ACCURACY,
    COLOR,
    FAMILIES,
    LABEL,
    SCORERS,
    TWO_COLUMNS,
    is_twin,
    legend,
    load_families,
    marker_style,
    read,
)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# The cell that all factors have in common.
CENTRE = "grid-k8"
# By factor, the cells that differ in it alone, with its value: active latents per token, millions
# of training tokens, width. A test compares them with the overlays in experiments/.
FACTORS: Mapping[str, Mapping[str, float]] = {
    "k": {"grid-k4": 4, CENTRE: 8, "grid-k16": 16, "grid-k32": 32},
    "tokens": {CENTRE: 1.75, "grid-tokens-4m": 4, "grid-tokens-10m": 10},
    "width": {CENTRE: 64, "grid-width-128": 128},
}
# Cells of other kinds of latents, at the centre's size.
KINDS = ("grid-selections", "grid-feedforwards")
CELLS = tuple(dict.fromkeys([*(cell for own in FACTORS.values() for cell in own), *KINDS]))
TITLES = {"k": "k", "tokens": "million tokens", "width": "width"}
# Of latents that are not dead, those without an explanation at chance, in layers that matter.
CHOSEN = {"explanation": "own", "measure": ACCURACY, "latents": "live", "layers": "matter"}
LEVEL = 0.95
# Half an interval of that level in standard errors, by the number of seeds (Student's t).
REACH = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def points(results: Path) -> pd.DataFrame:
    """Return a row per cell, seed, family and scorer: `score`, and `nats`, which the model that
    computes with these latents loses against the dense one.

    A coder's: the dense model with the coders of all layers in place. Native latents': their own
    model, which computes with them exactly. Families that no model can compute with have none.
    """
    return pd.concat(
        [pd.DataFrame(), *(_cell(results / name) for name in CELLS if (results / name).exists())],
        ignore_index=True,
    )


def _cell(folder: Path) -> pd.DataFrame:
    means, compute = read(folder, "means"), read(folder, "compute")
    families = read(folder, "families").set_index("family")
    chosen = np.logical_and.reduce([means[key] == value for key, value in CHOSEN.items()])
    rows = means[chosen & (means["seed"] != "all") & means["scorer"].isin(SCORERS)]
    rows = rows.assign(seed=rows["seed"].astype(int))[["family", "seed", "scorer", "mean"]]
    spliced = read(folder, "splice_all")
    cost = spliced.set_index(["family", "seed"]).eval("loss_splice - loss_clean").to_dict()
    models = compute[compute["kind"] == "model"].set_index(["name", "seed"])["heldout_loss"]
    for family, row in families[families["kind"] == "native"].iterrows():
        for seed in models.index.unique("seed"):
            if not row["untrained_model"] and (row["model"], seed) in models.index:
                cost[family, seed] = models[row["model"], seed] - models["dense", seed]
    nats = [cost.get(key, np.nan) for key in zip(rows["family"], rows["seed"])]
    return rows.rename(columns={"mean": "score"}).assign(cell=folder.name, nats=nats)[
        ["cell", "family", "seed", "scorer", "score", "nats"]
    ]


def orders(found: pd.DataFrame) -> pd.DataFrame:
    """Return by cell and scorer how alike the order of its families is to the centre's: Kendall's
    tau over the trained families of both, the mean over seeds, each compared with the same seed of
    the centre, with its 95 % interval; and the same of the mean over cells (`cell` all)."""
    subjects = [name for name, row in FAMILIES.items() if not pd.isna(row["untrained_twin"])]
    wide = found[found["family"].isin(subjects)].pivot_table(
        index="family", columns=["scorer", "cell", "seed"], values="score"
    )
    taus = {
        (scorer, cell, seed): kendall(wide[scorer, cell, seed], wide[scorer, CENTRE, seed])
        for scorer, cell, seed in wide.columns
        if cell != CENTRE and (scorer, CENTRE, seed) in wide.columns
    }
    rows = []
    for scorer in SCORERS:
        own = pd.Series({key[1:]: tau for key, tau in taus.items() if key[0] == scorer})
        if own.empty:
            continue
        by_seed = own.unstack()  # By cell and seed.
        for cell, values in {**dict(by_seed.iterrows()), "all": by_seed.mean()}.items():
            low, high = np.clip(interval(values), -1, 1)
            tau = values.mean()
            row = {"scorer": scorer, "cell": cell, "tau": tau, "low": low, "high": high}
            rows.append(row | {"seeds": values.count()})
    return pd.DataFrame(rows, columns=pd.Index(["scorer", "cell", "tau", "low", "high", "seeds"]))


def kendall(one: pd.Series, other: pd.Series) -> float:
    """Return Kendall's tau of what both hold: the share of pairs in the same order minus that of
    pairs in the opposite one."""
    both = pd.concat([one, other], axis=1).dropna().to_numpy()
    above, below = np.triu_indices(len(both), 1)
    signs = np.sign(both[above] - both[below])
    return float(np.mean(signs[:, 0] * signs[:, 1])) if len(signs) else np.nan


def interval(values: pd.Series) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a mean over seeds; its value where there is one."""
    values = values.dropna()
    reach = REACH.get(len(values), 0.0) * values.sem() if len(values) > 1 else 0.0
    return values.mean() - reach, values.mean() + reach


def draw(tables: Path) -> dict[str, tuple[Figure, str]] | None:
    """Return both figures with their captions; None before the centre and another cell have run."""
    found = points(tables.parent)
    if found.empty or CENTRE not in set(found["cell"]) or found["cell"].nunique() < 2:
        return None
    seeds = found["seed"].nunique()
    over = f"Bars: {100 * LEVEL:g} % intervals over {seeds} training seeds (Student's t)."
    kinds = "live latents, those without an explanation at chance, in layers that matter"
    score = (
        f"Score ({kinds}) against the loss of the model that computes with the latents, in nats "
        "above the dense model: coders in place of all feedforwards at once, native latents in "
        f"their own model, which they compute exactly. Small numbers: the factor. {over}"
    )
    order = (
        "Left: rank of each trained family by its mean score in every cell of the grid. Right: "
        "Kendall's tau between a cell's order and that of the cell in the middle, over the "
        f"families of both. {over}"
    )
    return {"grid": (pareto(found), score), "grid-order": (ranks(found), order)}


def pareto(found: pd.DataFrame) -> Figure:
    """Draw score against nats, a row per scorer, a column per factor and one of kinds."""
    columns = {**{name: tuple(cells) for name, cells in FACTORS.items()}, "": (CENTRE, *KINDS)}
    figure, grid = plt.subplots(
        len(SCORERS), len(columns), figsize=(TWO_COLUMNS, 4.2), sharey="row", squeeze=False
    )
    for line, scorer in zip(grid, SCORERS):
        own = found[found["scorer"] == scorer].dropna(subset=["nats", "score"])
        for axes, (factor, cells) in zip(line, columns.items()):
            there = own[own["cell"].isin(cells)]
            for family, rows in there.groupby("family", sort=False):
                if family in FAMILIES and not is_twin(str(family)):
                    _curve(axes, rows, str(family), FACTORS.get(factor, {}))
            axes.axvline(0, color="0.6", lw=0.6, zorder=0)
        line[0].set_ylabel(scorer)
    for axes, factor in zip(grid[0], columns):
        axes.set_title(TITLES.get(factor, "kinds of latents"))
    for axes in grid[-1]:
        axes.set_xlabel("nats above dense")
    legend(figure, grid.flat, columns=4)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, family: str, values: Mapping[str, float]) -> None:
    """Draw a family's means over seeds with their intervals, joined in the order of the factor."""
    cells = list(dict.fromkeys(values or rows["cell"]))
    by_cell = {cell: own for cell, own in rows.groupby("cell") if cell in cells}
    if not values:  # Kinds at one size: a family of several cells is shown once.
        by_cell = dict([*by_cell.items()][:1])
    places = []
    for cell in (cell for cell in cells if cell in by_cell):
        x, y = by_cell[cell]["nats"], by_cell[cell]["score"]
        reach = [[x.mean() - interval(x)[0]], [y.mean() - interval(y)[0]]]
        style = marker_style(family, 3.5)
        axes.errorbar(x.mean(), y.mean(), reach[1], reach[0], elinewidth=0.6, **style)
        places.append((x.mean(), y.mean()))
        if values:
            axes.annotate(
                f"{values[cell]:g}",
                places[-1],
                xytext=(2, 2),
                textcoords="offset points",
                fontsize=5,
                color=COLOR[family],
            )
    axes.plot(*zip(*places), color=COLOR[family], lw=0.8, label=LABEL[family])


def ranks(found: pd.DataFrame) -> Figure:
    """Draw the ranks of families over cells, and how alike the orders are to the centre's."""
    figure, grid = plt.subplots(
        len(SCORERS),
        2,
        figsize=(TWO_COLUMNS, 4.4),
        width_ratios=(2, 1),
        squeeze=False,
        sharey="col",
    )
    cells = [cell for cell in CELLS if cell in set(found["cell"])]
    places = dict(zip(cells, range(len(cells))))
    centre = set(found.loc[found["cell"] == CENTRE, "family"])
    taus = orders(found)
    subjects = [f for f, row in FAMILIES.items() if f in centre and pd.notna(row["untrained_twin"])]
    for (left, right), scorer in zip(grid, SCORERS):
        own = found[(found["scorer"] == scorer) & found["family"].isin(subjects)]
        means = own.groupby(["family", "cell"])["score"].mean().unstack()
        placed = means.rank(ascending=False)
        for family in (family for family in subjects if family in placed.index):
            row = placed.loc[family].reindex(cells).dropna()
            x = [places[cell] for cell in row.index]
            left.plot(x, row, lw=1, label=LABEL[family], **marker_style(family, 4))
        left.set_ylim(len(placed) + 0.4, 0.6)
        left.set_ylabel(f"rank in {scorer}")
        for row in taus[taus["scorer"] == scorer].itertuples():
            y = places.get(row.cell, len(cells))
            reach = [[row.tau - row.low], [row.high - row.tau]]
            right.errorbar(row.tau, y, xerr=reach, color="0.2", marker="o", markersize=3)
        names = [cell.removeprefix("grid-") for cell in cells]
        left.set_xticks(range(len(cells)), names, rotation=30, ha="right")
        right.set_yticks(range(len(cells) + 1), [*names, "mean"])
        right.set_ylim(len(cells) + 0.5, -0.5)
        right.axvline(0, color="0.6", lw=0.6, zorder=0)
        right.set_xlim(-1.05, 1.05)
    grid[-1][1].set_xlabel(f"Kendall's tau against {CENTRE.removeprefix('grid-')}")
    legend(figure, grid[:, 0], columns=5)
    return figure


if __name__ == "__main__":
    place = Path(sys.argv[1])
    load_families(place / CENTRE)
    (place / "grid").mkdir(exist_ok=True)
    gathered = points(place)
    for name, table in (("points", gathered), ("orders", orders(gathered))):
        table.to_csv(place / "grid" / f"{name}.csv", index=False, float_format="%.6g")
