"""What the generalization observatory saw: runs, their curves, and the metrics of checkpoints.

| table | one row per |
|---|---|
| generalization_runs | task, run: what it is, how it ended, the gap of test and training loss |
| generalization_curves | task, run, measured step: losses, accuracies |
| generalization_measures | task, run, checkpoint, hookpoint or none: every metric |
| generalization_phases | task, run of at least five checkpoints: when its phases end |

In memory the measures are long, a row per metric; `wide` makes of them what is written. The runs
that are written have columns more: `clearnets.generalization.tables.labelled`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pandas as pd

from clearnets import UserError
from clearnets.config import Config
from clearnets.pipeline import artifacts, paths

PHASES = ("task", "run", "memorised", "formed", "cleaned_up", "learned", "best")
MIN_CHECKPOINTS = 5
GROKKED = 0.99
"""Test accuracy at which a run has generalized."""
PLATEAU = 0.9
"""Share of its largest value above which the test loss has not yet fallen, and of its whole fall
that it has made where it is low."""
_KEYS = ["task", "run", "step", "hookpoint"]


def inputs(config: Config) -> dict[str, Path]:
    """By name, the units that these tables are made from."""
    return {f"generalize/{task}": paths.generalize(task) for task in config.generalize.tasks}


def tables(config: Config) -> dict[str, pd.DataFrame]:
    """The tables of all tasks."""
    runs = _gather(config, "runs")
    names = runs[["task", "run", "seed", "variant"]]
    curves = names.merge(_gather(config, "curves"), on=["task", "run"], how="right")
    measures: Any = _gather(config, "measures")
    measures["hookpoint"] = measures["hookpoint"].fillna("")
    measures["row"] = range(len(measures))
    measures = measures.melt([*_KEYS, "row"], var_name="metric", value_name="value").dropna()
    measures = measures.sort_values("row", kind="stable", ignore_index=True).drop(columns="row")
    found = {"runs": runs, "curves": curves, "measures": measures}
    found["phases"] = phases(runs, curves, measures)
    return {f"generalization_{name}": table for name, table in found.items()}


def phases(runs: pd.DataFrame, curves: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """When the phases of runs end, in steps of checkpoints; empty where a phase does not end.

    Of grokking (Nanda et al. 2023), which has measures of progress. `memorised`: where the excluded
    loss on training pairs is lowest; from there on the circuit takes the place of memory. `formed`:
    the last checkpoint at which the test loss has not begun to fall. `cleaned_up`: the first from
    which on test accuracy stays above `GROKKED`.

    Of all others, by the test loss. `learned`: the first checkpoint at which it has made the share
    `PLATEAU` of its way from the first checkpoint down to its lowest, the end of the steep fall.
    `best`: where it is lowest; what comes after is overfitting, and there is none where that is the
    last checkpoint.
    """
    rows = []
    grouped: Any = measures.groupby(["task", "run"], sort=False)
    for (task, run), own in grouped:
        of_run: Any = curves[(curves["task"] == task) & (curves["run"] == run)]
        at: Any = of_run.set_index("step").reindex(sorted(own["step"].unique()))
        excluded: Any = own[own["metric"] == "excluded_loss"]
        found = {"task": task, "run": run}
        if len(excluded):
            rows.append(found | _grokking(at, excluded))
        elif len(at) >= MIN_CHECKPOINTS and at["test_loss"].notna().all():
            rows.append(found | _learning(at["test_loss"]))
    return pd.DataFrame(rows, columns=list(PHASES))


def _grokking(at: Any, excluded: Any) -> dict[str, int | None]:
    """From a run's curve at its checkpoints, and its excluded loss."""
    memorised = int(excluded.loc[excluded["value"].idxmin(), "step"])
    late = at[at.index >= memorised]
    high = late.index[late["test_loss"] >= PLATEAU * late["test_loss"].max()]
    short = at.index[at["test_accuracy"] <= GROKKED]
    after = at.index[at.index > short[-1]] if len(short) else at.index
    return {
        "memorised": memorised,
        "formed": int(high[-1]) if high[-1] < at.index[-1] else None,
        "cleaned_up": int(after[0]) if len(after) else None,
    }


def _learning(loss: Any) -> dict[str, int | None]:
    """From a run's test loss by checkpoint."""
    fall = loss.iloc[0] - loss.min()
    low = loss.index[loss <= loss.iloc[0] - PLATEAU * fall]
    return {"learned": int(low[0]), "best": int(loss.idxmin())} if fall > 0 else {}


def wide(measures: pd.DataFrame) -> pd.DataFrame:
    """A column for each metric: a sixth of the size."""
    metrics = list(dict.fromkeys(measures["metric"]))
    table: Any = measures.pivot(index=_KEYS, columns="metric", values="value").reset_index()
    # pivot sorts; the order of tasks and runs is the tables'.
    firsts = measures.drop_duplicates(_KEYS)[_KEYS]
    return cast(pd.DataFrame, firsts.merge(table, on=_KEYS)[[*_KEYS, *metrics]])


def _gather(config: Config, name: str) -> pd.DataFrame:
    frames = []
    for task in config.generalize.tasks:
        path = paths.generalize(task) / f"{name}.csv"
        try:
            frame = pd.read_csv(path, dtype={"hookpoint": str})
        except FileNotFoundError:
            raise UserError(artifacts.missing(path)) from None
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            cure = artifacts.remake(path)
            raise UserError(f"{path} is not readable CSV ({error}); {cure}") from None
        frame.insert(0, "task", task)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
