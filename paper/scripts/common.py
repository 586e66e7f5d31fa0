"""What the figure scripts share: style, colours, tables in, PDF and SVG out.

The scripts read the tables of one experiment and nothing else; they import numpy, pandas and
matplotlib only, so that they run from a clone without the package.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

plt.style.use(Path(__file__).parents[1] / "clearnets.mplstyle")

# Widths of a figure in a two-column paper, in inches.
ONE_COLUMN, TWO_COLUMNS = 3.35, 6.9

# A model is called by its feedforward. How each is drawn: colour, marker, line style.
MODELS = {
    "dense": ("#000000", "s", "-"),
    "dense_wide": ("#666666", "s", (0, (1, 1))),
    "dense_weight_sparse": ("#666666", "D", (0, (3, 1, 1, 1))),
    "sparse": ("#0072B2", "o", (0, (4, 1.2))),
    "sparse_topk": ("#56B4E9", "o", (0, (2, 1))),
    "sparse_low_rank": ("#56B4E9", "v", (0, (1, 1))),
    "sparse_product_key": ("#56B4E9", "^", (0, (3, 1, 1, 1))),
    "sparse_kronecker": ("#56B4E9", "P", (0, (5, 1, 1, 1, 1, 1))),
}

# How models and families are drawn, by name. `load_families` adds the families.
COLOR = {name: color for name, (color, _, _) in MODELS.items()}
MARKER = {name: marker for name, (_, marker, _) in MODELS.items()}
LABEL: dict[str, str] = {}
FAMILIES: dict[str, pd.Series] = {}
# Families with the controls that are drawn in the same panel.
CONTROLS: dict[str, list[str]] = {}
# Top to bottom: each family with its controls, then the other controls; a gap between groups.
GROUPS: list[list[str]] = []
# Metrics whose names in words differ from their names in the tables by more than underscores.
METRIC_LABEL = {
    "l0": "L0",
    "dead": "dead latents",
    "hoyer": "Hoyer",
    "gini": "Gini",
    "norm_mean": "mean norm",
    "norm_variance": "variance of norms",
    "norm_skewness": "skewness of norms",
    "norm_kurtosis": "kurtosis of norms",
    "variance_trace": "trace of variance",
    "fvu": "FVU",
    "pgdl": "PGDL winners' measure",
    "davies_bouldin": "Davies–Bouldin index",
    "stability": "feature stability",
    "hidden_size": "width",
    "num_layers": "depth",
    "train": "size of the training set",
}
SCORERS = ("rule-detection", "rule-fuzzing")
ACCURACY = "balanced_accuracy"
GREY = "0.45"
DOTS = (0, (1, 1.5))
# Markers of a legend that stand for all families.
PLAIN: dict[str, object] = {"ls": "", "color": "0.25", "markersize": 4}
# Half-width of a violin and the standard deviation of its kernel, in units of the score.
HALF, KERNEL = 0.36, 0.02
# Half a kernel apart: finer ones make no other picture, and larger files.
GRID = np.linspace(0, 1, 101)
GAP = 0.55

ONLY_THESE = (
    "Intervals are {level} bootstrap intervals over latents and describe these trained models only."
)
OVER_LAYERS = "Thin lines: intervals over layers, drawn as if there were others such as these. "


def load_families(tables: Path) -> None:
    """Read how families are drawn and grouped from `families.csv` of an experiment.

    Results that were made before there was such a table take that of the default experiment.
    """
    found = [folder / "families.csv" for folder in (tables, tables.parent / "default")]
    found = [path for path in found if path.exists()]
    if not found:
        return
    table = pd.read_csv(found[0]).set_index("family", drop=False)
    FAMILIES.update({str(name): row for name, row in table.iterrows()})
    for known, column in ((COLOR, "color"), (MARKER, "marker"), (LABEL, "label")):
        known.update(table[column])
    subjects = table.dropna(subset="untrained_twin")
    groups = []
    for twin in table.index[table.index.isin(subjects["untrained_twin"])]:
        same = subjects[subjects["untrained_twin"] == twin]
        controls = same[["null", "untrained_twin", "untrained_model_twin"]].melt()["value"].dropna()
        groups.append(list(dict.fromkeys([*same.index, *controls])))
        for family, row in same[["untrained_twin", "untrained_model_twin"]].iterrows():
            CONTROLS[str(family)] = row.dropna().tolist()
    grouped = {family for group in groups for family in group}
    planted = table.index[table["planted"].notna()].tolist() if "planted" in table else []
    others = [family for family in table.index if family not in {*grouped, *planted}]
    GROUPS[:] = [*groups, others, planted]
    if others:
        CONTROLS[others[0]] = others[1:]


def is_twin(family: str) -> bool:
    """Whether the family is an untrained control."""
    return FAMILIES[family]["fill"] == "none"


def is_step0(family: str) -> bool:
    """Whether the family is of an earlier state of its model, such as step 0."""
    return FAMILIES[family]["fill"] == "left"


def is_control(family: str) -> bool:
    """Tell whether the family is a control of another one."""
    return is_twin(family) or is_step0(family)


def is_tokens(family: str) -> bool:
    """Tell whether the family's latents read tokens alone and no model."""
    return bool(pd.isna(FAMILIES[family]["model"]))


def marker_style(family: str, size: float = 4.5) -> dict[str, object]:
    """Return the marker of a family: filled, hollow for an untrained twin, half for step 0."""
    color = COLOR[family]
    style: dict[str, object] = {
        "color": color,
        "marker": MARKER[family],
        "markersize": size,
        "markerfacecolor": "white" if is_twin(family) else color,
        "markeredgecolor": color if is_control(family) else "white",
        "markeredgewidth": 0.8 if is_control(family) else 0.4,
    }
    if is_step0(family):
        style |= {"fillstyle": "left", "markerfacecoloralt": "white"}
    return style


def rows_of(present: set[str]) -> dict[str, float]:
    """Return the height of each family's row, from top to bottom."""
    rows: dict[str, float] = {}
    y = 0.0
    for group in GROUPS:
        inside = [family for family in group if family in present]
        for family in inside:
            rows[family] = y
            y += 1
        y += GAP * bool(inside)
    return rows


def line_style(family: str) -> dict[str, object]:
    """Return the line and marker of a family."""
    dashes = (0, (2, 1.5)) if is_twin(family) else (0, (4, 1.2, 1, 1.2))
    return {
        **marker_style(family, size=3.5),
        "markeredgecolor": COLOR[family],
        "markeredgewidth": 0.8,
        "linestyle": dashes if is_control(family) else "-",
        "linewidth": 0.8 if is_control(family) else 1.2,
        "label": LABEL[family],
    }


def metric_label(metric: str) -> str:
    """Return a metric of the generalization observatory in words."""
    return METRIC_LABEL.get(metric, metric.replace("_", " "))


def read(tables: Path, name: str) -> pd.DataFrame:
    """Read one table of an experiment."""
    return pd.read_csv(tables / f"{name}.csv")


def level(table: pd.DataFrame) -> str:
    """Return the confidence level of a table's intervals as text."""
    return f"{100 * table['confidence'].iloc[0]:g} %"


def pair_note(tables: Path) -> str:
    """Return a sentence for the caption where the models' losses differ too much, or nothing."""
    pair = read(tables, "pair")
    if pair["matched"].all():
        return ""
    return (
        f" The models are not matched: losses differ by {pair['difference'].abs().max():.3f} nats."
    )


def models(column: pd.Series) -> dict[str, object]:
    """Return the models that a table names, dense first, each with its line style."""
    return {name: style for name, (*_, style) in MODELS.items() if (column == name).any()}


def seeds(table: pd.DataFrame) -> str:
    """Return how many training seeds a table holds, as text."""
    count = table["seed"].nunique()
    return "one training seed" if count == 1 else f"{count} training seeds"


def control_keys(present: Iterable[str], *more: Line2D) -> list[Line2D]:
    """Return keys of a legend for the kinds of markers, where panels name the families."""
    keys = [Line2D([], [], marker="o", **PLAIN, label="a family")]  # pyright: ignore
    present = set(present)
    if any(is_twin(family) for family in present):
        hollow = {"markerfacecolor": "white"}
        keys.append(Line2D([], [], marker="o", **hollow, **PLAIN, label="its untrained twin"))  # pyright: ignore
    if any(is_step0(family) for family in present):
        half = {"fillstyle": "left", "markerfacecoloralt": "white"}
        label = "its model at an earlier step"
        keys.append(Line2D([], [], marker="o", **half, **PLAIN, label=label))  # pyright: ignore
    return [*keys, *more]


def chance_key() -> Line2D:
    """Return the legend's key of the line at chance."""
    return Line2D([], [], color=GREY, lw=0.7, ls=DOTS, label="chance")


def shuffled_key() -> Line2D:
    """Return the legend's key of scores with the explanations of other latents."""
    label = "with shuffled explanations"
    return Line2D([], [], marker="x", **PLAIN, label=label)  # pyright: ignore


def over_seeds(axes: Axes, table: pd.DataFrame, column: str, **style: object) -> None:
    """Draw the mean of `column` over seeds by layer, with their range as a band."""
    by_layer = table.dropna(subset=[column]).groupby("layer")[column]
    mean = by_layer.mean()
    axes.plot(mean.index, mean, **style)  # pyright: ignore[reportArgumentType]
    if table["seed"].nunique() > 1:
        axes.fill_between(
            mean.index, by_layer.min(), by_layer.max(), color=style["color"], alpha=0.15, lw=0
        )


def layer_axis(axes: Axes, layers: pd.Series) -> None:
    """Set integer ticks for the layers."""
    ticks = sorted(layers.dropna().astype(int).unique())
    axes.set_xticks(ticks)
    axes.set_xlim(ticks[0] - 0.4, ticks[-1] + 0.4)
    axes.set_xlabel("layer")


def name_rows(axes: Axes, rows: dict[str, float]) -> None:
    """Write the names of families at the heights of their rows, from top to bottom."""
    axes.set_yticks(list(rows.values()), [LABEL[family] for family in rows])
    axes.set_ylim(max(rows.values()) + 0.6, -0.6)


def row_axes(axes: Axes) -> None:
    """Set axes whose rows have names: vertical grid lines, no ticks and no line at the left."""
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def legend(figure: Figure, panels: Iterable[Axes], *, columns: int) -> None:
    """Draw one legend below the panels, with each label once."""
    handles = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=columns)


def violin(axes: Axes, values: np.ndarray, y: float, family: str) -> None:
    """Draw a Gaussian kernel density; of controls the outline alone."""
    if len(values) < 2:
        return
    color = COLOR[family]
    density = np.exp(-0.5 * ((GRID[:, None] - values) / KERNEL) ** 2).sum(axis=1)
    height = HALF * density / density.max()
    axes.fill_between(
        GRID,
        y - height,
        y + height,
        where=list(height > 0.004),
        facecolor="white" if is_control(family) else (color, 0.28),
        edgecolor=color,
        lw=0.5,
    )


def mean_marker(axes: Axes, row, y: float, family: str) -> None:
    """Draw a mean with its interval over latents and, where there is one, a thin one over layers;
    a cross where explanations are shuffled."""
    style: dict[str, object] = marker_style(family)
    if row.explanation == "shuffled":
        style = {"color": "0.25", "marker": "x", "markersize": 3.5, "markeredgewidth": 0.8}
    if hasattr(row, "low_layers"):
        ends = [row.low_layers, row.high_layers]
        axes.plot(ends, [y, y], color=style["color"], lw=0.6, zorder=3)
    reach = [[row.mean - row.low], [row.high - row.mean]]
    axes.errorbar(row.mean, y, xerr=reach, elinewidth=1.5, zorder=4, **style)


def mean_keys(families: Iterable[str]) -> list[Line2D]:
    """Return the legend's keys for markers of means."""
    return control_keys(families, shuffled_key(), chance_key())


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `name`.pdf and `name`.svg without dates, so that equal tables give equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    no_dates = {"Creator": None, "Producer": None, "CreationDate": None}
    figure.savefig(folder / f"{name}.pdf", metadata=no_dates)
    # The layout is the same at every resolution; finding it again takes as long as drawing.
    figure.set_layout_engine("none")
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
