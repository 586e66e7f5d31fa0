"""Training runs seen through their checkpoints: losses and metrics on one time axis, phases marked.

For each task whose runs have enough checkpoints two figures: what matters most, and every metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from common import GREY, TWO_COLUMNS, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

MIN_CHECKPOINTS = 5
MAX_GROUPS = 4
# Metrics of the second row and below, where there are such: those of latents by hookpoint.
MAIN = {"hoyer": "Hoyer sparsity", "fvu": "fvu of the SAE", "stability": "shared features"}
# Below them, of the whole model: a row, with a line for each way to ablate latents.
CIRCUITS = {"circuit_size": "latents needed", "node_entropy": "entropy [nats]"}
# Share of what all latents recover that those of a circuit do.
RECOVERED = 0.9
ABLATIONS = {"zero": "-", "patch": (0, (4, 1.2))}
PROGRESS = {"restricted_loss": "restricted", "excluded_loss": "excluded"}
GROUP_COLOR = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
POINT_COLOR = {"attention": "#D55E00", "feedforward": "#0072B2"}
LAYER_STYLE = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (4, 1, 1, 1)))
# Where phases end, by their names: of grokking, and of all else, whose last one goes to the end.
GROKKING = {
    "memorised": "memorisation",
    "formed": "circuit formation",
    "cleaned_up": "clean-up",
}
# Test accuracy at which a run has generalized.
GROKKED = 0.99
LEARNING = {"learned": "learning", "best": "refinement", "": "overfitting"}
SHADE = ("0.93", "0.87", "0.81")
COLUMNS = 5

Drawn = dict[str, tuple[Figure, str]]


def draw(tables: Path) -> Drawn:
    """Return the figures and their captions by name; none where nothing was observed."""
    if not (tables / "generalization_measures.csv").exists():
        return {}
    curves = read(tables, "generalization_curves")
    runs = read(tables, "generalization_runs")
    phases = read(tables, "generalization_phases")
    measures = read(tables, "generalization_measures")
    measures["hookpoint"] = measures["hookpoint"].fillna("")
    drawn: Drawn = {}
    for task in runs["task"].unique():
        here = runs[runs["task"] == task]
        steps = measures[measures["task"] == task].groupby("run")["step"].nunique()
        if here.empty or steps.median() < MIN_CHECKPOINTS:
            continue
        own = (table[table["task"] == task] for table in (curves, measures, phases))
        one = _Task(*own, _groups(here), log=bool(here["log_steps"].all()))
        drawn[f"observed-{task}"] = _main(task, one)
        drawn[f"observed-{task}-all"] = _all(task, one)
    return drawn


class _Task:
    """The tables of one task, and its runs by group."""

    def __init__(
        self,
        curves: pd.DataFrame,
        measures: pd.DataFrame,
        phases: pd.DataFrame,
        groups: dict[str, list[str]],
        *,
        log: bool,
    ) -> None:
        self.curves, self.measures, self.phases, self.groups = curves, measures, phases, groups
        self.log = log

    def x(self, steps: pd.Index) -> np.ndarray:
        """Return steps on the axis: the untrained model stands at 1 of a logarithmic one."""
        return np.asarray(steps, float) + (1 if self.log else 0)

    def seeds(self) -> str:
        """Return how many runs a group has, as text."""
        counts = sorted({len(runs) for runs in self.groups.values()})
        return "one seed" if counts == [1] else f"{counts[0]} seeds"

    def axis(self, axes: Axes) -> None:
        """Set the time axis."""
        if self.log:
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        steps = self.measures["step"]
        axes.set_xlim(*self.x(pd.Index([steps.min(), steps.max()])))


def _groups(runs: pd.DataFrame) -> dict[str, list[str]]:
    """Return the names of runs that differ in their seed alone, by what they have in common."""
    groups: dict[str, list[str]] = {}
    for row in runs.itertuples():
        groups.setdefault(row.group.replace("_", " "), []).append(row.run)
    return groups


def _spread(axes: Axes, task: _Task, table: pd.DataFrame, column: str, **style: object) -> None:
    """Draw the mean over seeds with the range as a band."""
    by_step = table.dropna(subset=[column]).groupby("step")[column]
    mean = by_step.mean()
    if mean.empty:
        return
    axes.plot(task.x(mean.index), mean, **style)  # pyright: ignore[reportArgumentType]
    if by_step.size().max() > 1:
        low, high = by_step.min(), by_step.max()
        color = style.get("color")
        axes.fill_between(task.x(mean.index), low, high, color=color, alpha=0.15, lw=0)  # pyright: ignore[reportArgumentType]


def _main(task: str, of: _Task) -> tuple[Figure, str]:
    """Draw losses, then chosen metrics by hookpoint, a column for each group of runs."""
    names = list(of.groups)[:MAX_GROUPS]
    metrics = [name for name in MAIN if name in of.measures and of.measures[name].notna().any()]
    progress = [
        name for name in PROGRESS if name in of.measures and of.measures[name].notna().any()
    ]
    circuits = [name for name in CIRCUITS if f"{name}_zero" in of.measures]
    circuits = [name for name in circuits if of.measures[f"{name}_zero"].notna().any()]
    rows = 1 + len(metrics) + len(circuits)
    figure, grid = plt.subplots(
        rows,
        len(names),
        figsize=(TWO_COLUMNS, 0.9 + 1.15 * rows),
        sharex=True,
        sharey="row",
        squeeze=False,
    )
    for column, name in enumerate(names):
        runs = of.groups[name]
        top = grid[0][column]
        top.set_title(name)
        curves = of.curves[of.curves["run"].isin(runs)]
        measures = of.measures[of.measures["run"].isin(runs)]
        _spread(top, of, curves, "train_loss", color=GREY, ls=(0, (4, 1.2)), label="training loss")
        _spread(top, of, curves, "test_loss", color="black", label="test loss")
        for metric, color in zip(progress, ("#009E73", "#CC79A7")):
            label = f"{PROGRESS[metric]} loss"
            _spread(top, of, measures, metric, color=color, lw=0.9, label=label)
        top.set_yscale("log")
        for row, metric in enumerate(metrics, 1):
            for point in _points(measures):
                at = measures[measures["hookpoint"] == point]
                _spread(grid[row][column], of, at, metric, **_style(point, _points(measures)))
        for row, metric in enumerate(circuits, 1 + len(metrics)):
            for way, dashes in ABLATIONS.items():
                style = {"color": "#CC79A7", "ls": dashes, "label": f"{way} ablation"}
                _spread(grid[row][column], of, measures, f"{metric}_{way}", lw=1.0, **style)
            grid[row][column].set_ylim(bottom=0)
        for axes in grid[:, column]:
            _mark(axes, of, runs)
            of.axis(axes)
        grid[-1][column].set_xlabel("step + 1" if of.log else "step")
    names_of_rows = ["nats", *(MAIN[m] for m in metrics), *(CIRCUITS[m] for m in circuits)]
    for axes, text in zip(grid[:, 0], names_of_rows):
        axes.set_ylabel(text)
    handles = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels()):
            handles.setdefault(label, handle)
    # Lines as they come, then phases in their order.
    phases = [name for name in (*GROKKING.values(), *LEARNING.values()) if name in handles]
    labels = [*(label for label in handles if label not in phases), *phases]
    figure.legend([handles[label] for label in labels], labels, loc="outside lower center", ncols=5)
    return figure, _caption(task, of, bool(progress), bool(circuits), names)


def _points(measures: pd.DataFrame) -> list[str]:
    return [point for point in measures["hookpoint"].unique() if point]


def _style(point: str, points: Sequence[str]) -> dict[str, object]:
    """Return the colour by kind of module and the line style by layer."""
    alike = [name for name in points if _kind(name) == _kind(point)]
    place = alike.index(point)
    label = _kind(point) if len(alike) == 1 else point
    style = LAYER_STYLE[place % len(LAYER_STYLE)]
    return {"color": POINT_COLOR[_kind(point)], "ls": style, "lw": 1.0, "label": label}


def _kind(point: str) -> str:
    # SwinV2's attention is read behind its norm.
    return "attention" if "att" in point or "layernorm_before" in point else "feedforward"


def _mark(axes: Axes, of: _Task, runs: Sequence[str]) -> None:
    """Shade the phases, at the middle seed's steps; one that does not end goes to the last step."""
    own = of.phases[of.phases["run"].isin(runs)]
    last = float(of.measures["step"].max())
    start = 0.0
    for (column, name), shade in zip(_phases(own).items(), SHADE):
        ends = own[column].fillna(last) if column else pd.Series([last])
        end = min(float(ends.median()), last)
        if end <= start:
            continue
        low, high = of.x(pd.Index([start, end]))
        axes.axvspan(low, high, color=shade, lw=0, zorder=0, label=name)
        start = end


def _phases(own: pd.DataFrame) -> dict[str, str]:
    """Return the names of phases by the columns in which they end; none where runs have none."""
    if own.empty:
        return {}
    if own["memorised"].notna().any():
        return GROKKING
    return LEARNING if "learned" in own and own["learned"].notna().any() else {}


def _all(task: str, of: _Task) -> tuple[Figure, str]:
    """Draw every metric, the mean over hookpoints, groups by colour."""
    keys = {"task", "run", "step", "hookpoint"}
    metrics = [name for name in of.measures if name not in keys and of.measures[name].notna().any()]
    curves = ["train_loss", "test_loss", "train_accuracy", "test_accuracy"]
    panels = [*curves, *metrics]
    rows = -(-len(panels) // COLUMNS)
    figure, grid = plt.subplots(
        rows, COLUMNS, figsize=(TWO_COLUMNS, 0.6 + 0.95 * rows), sharex=True, squeeze=False
    )
    for axes, panel in zip(grid.flat, panels):
        table = of.curves if panel in curves else of.measures
        for (name, runs), color in zip(of.groups.items(), GROUP_COLOR):
            own = table[table["run"].isin(runs)]
            means = own.groupby(["run", "step"], as_index=False)[panel].mean()
            _spread(axes, of, means, panel, color=color, lw=0.9, label=name)
        axes.set_title(panel.replace("_", " "), fontsize=6.5)
        axes.tick_params(labelsize=5.5)
        of.axis(axes)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("step + 1" if of.log else "step", fontsize=6.5)
    # The second: a named language model has no training loss.
    handles, labels = grid.flat[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    shown = list(of.groups)[: len(GROUP_COLOR)]
    left_out = len(of.groups) - len(shown)
    note = f" {left_out} further groups of runs are left out." if left_out else ""
    return figure, (
        f"Every metric over the checkpoints of the task {task} ({of.seeds()}; bands: from the "
        f"least to the greatest), the mean over hookpoints.{note}"
    )


def _caption(task: str, of: _Task, progress: bool, circuits: bool, names: Sequence[str]) -> str:
    said = (
        f"Checkpoints of the task {task} on one time axis ({of.seeds()}; bands: from the least to "
        "the greatest). Below the losses: sparsity of the mean activations of latents, what SAEs "
        "leave unexplained, and the mean cosine of latents with their matched counterparts at the "
        "checkpoint before (features that stay; the SAEs of all checkpoints begin with the same "
        "weights and see the same rows, which is a part of it). Feedforwards that are sparse by "
        "construction have latents of their own and no SAE."
    )
    if circuits:
        said += (
            " Latents needed: how many of the feedforward's own, by falling effect, recover "
            f"{100 * RECOVERED:.0f} % of what all of them lower the training loss by, all others "
            "at zero or at their value for another input (patch); entropy: of the distribution of "
            "their effects."
        )
    if progress:
        said += (
            " Restricted: test loss with nothing left of the logits but the key frequencies; "
            "excluded: training loss without them. Shaded, at the middle seed: memorisation, up to "
            "the lowest excluded loss; circuit formation, until the test loss begins to fall; "
            f"clean-up, until test accuracy stays above {GROKKED:g}."
        )
    elif _phases(of.phases):
        said += (
            " Shaded, at the middle seed: learning, until the test loss has made nine tenths of "
            "its way to its lowest; refinement, until it is lowest; overfitting, all after that."
        )
    left_out = len(of.groups) - len(names)
    return said + (f" {left_out} further groups of runs are left out." if left_out else "")
