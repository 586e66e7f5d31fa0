"""The generalization tables of an experiment, of all of its tasks.

| table | one row per |
|---|---|
| generalization_runs | task, run: settings, the end of its curve, gap, group in figures |
| generalization_curves | task, run, measured step: losses, accuracies |
| generalization_measures | task, run, checkpoint, hookpoint or none: every metric |
| generalization_phases | task, run of at least five checkpoints: when its phases end |
| generalization_leads | task, group of runs, metric: whether it moves before the test loss |
| generalization_ranking | task, metric: how well it orders runs by their gap |

In memory the measures have a row per metric; `wide` gives them the written form.
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
after which it is low."""
_KEYS = ["task", "run", "step", "hookpoint"]


def inputs(config: Config) -> dict[str, Path]:
    """Return the units that the tables are made from, by name."""
    return {f"generalize/{task}": paths.generalize(task) for task in config.generalize.tasks}


def make(config: Config) -> dict[str, pd.DataFrame]:
    """Return every table by name; none where the experiment has no task.

    Raises:
        UserError: a task's result is missing or damaged.
    """
    from clearnets.generalization.leads import leads
    from clearnets.generalization.ranking import ranking
    from clearnets.generalization.runs import labelled

    if not config.generalize.tasks:
        return {}
    runs, curves, measures = _read(config)
    of = config.collate
    options: Any = {"resamples": of.resamples, "confidence": of.confidence, "seed": of.seed}
    tables = {
        "runs": labelled(runs, measures),
        "curves": curves,
        "measures": wide(measures),
        "phases": phases(curves, measures),
        "leads": leads(runs, curves, measures, **options),
        "ranking": ranking(runs, measures, permutations=of.resamples, **options),
    }
    return {f"generalization_{name}": table for name, table in tables.items()}


def _read(config: Config) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return runs, curves and measures of all tasks."""
    runs = _read_table(config, "runs")
    names = runs[["task", "run", "seed", "variant"]]
    curves = names.merge(_read_table(config, "curves"), on=["task", "run"], how="right")
    measures: Any = _read_table(config, "measures")
    measures["hookpoint"] = measures["hookpoint"].fillna("")
    measures["row"] = range(len(measures))
    measures = measures.melt([*_KEYS, "row"], var_name="metric", value_name="value").dropna()
    measures = measures.sort_values("row", kind="stable", ignore_index=True).drop(columns="row")
    return runs, curves, measures


def _read_table(config: Config, name: str) -> pd.DataFrame:
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


def wide(measures: pd.DataFrame) -> pd.DataFrame:
    """Return the measures with a column for each metric, at a sixth of the size."""
    metrics = list(dict.fromkeys(measures["metric"]))
    table: Any = measures.pivot(index=_KEYS, columns="metric", values="value").reset_index()
    # pivot sorts: back to the order of tasks and runs.
    firsts = measures.drop_duplicates(_KEYS)[_KEYS]
    return cast(pd.DataFrame, firsts.merge(table, on=_KEYS)[[*_KEYS, *metrics]])


def phases(curves: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Return when the phases of runs end, in steps of checkpoints; NaN where a phase does not end.

    Of runs with an excluded loss, those of grokking (Nanda et al. 2023). `memorised`: where the
    excluded loss on training pairs is lowest, after which waves replace memorised answers.
    `formed`: the last checkpoint at which the test loss has not begun to fall. `cleaned_up`: the
    first from which on test accuracy stays above `GROKKED`.

    Of all others, those of the test loss. `learned`: the first checkpoint at which it has made the
    share `PLATEAU` of its way from the first checkpoint down to its lowest, the end of the steep
    fall. `best`: where it is lowest, after which the run overfits.
    """
    rows = []
    grouped: Any = measures.groupby(["task", "run"], sort=False)
    for (task, run), own in grouped:
        of_run: Any = curves[(curves["task"] == task) & (curves["run"] == run)]
        at: Any = of_run.set_index("step").reindex(sorted(own["step"].unique()))
        excluded: Any = own[own["metric"] == "excluded_loss"]
        names = {"task": task, "run": run}
        if len(excluded):
            rows.append(names | _grokking_phases(at, excluded))
        elif len(at) >= MIN_CHECKPOINTS and at["test_loss"].notna().all():
            rows.append(names | _learning_phases(at["test_loss"]))
    return pd.DataFrame(rows, columns=list(PHASES))


def _grokking_phases(at: Any, excluded: Any) -> dict[str, int | None]:
    """Return the phases of a run from its curve at its checkpoints and its excluded loss."""
    memorised = int(excluded.loc[excluded["value"].idxmin(), "step"])
    late = at[at.index >= memorised]
    high = late.index[late["test_loss"] >= PLATEAU * late["test_loss"].max()]
    inaccurate = at.index[at["test_accuracy"] <= GROKKED]
    after = at.index[at.index > inaccurate[-1]] if len(inaccurate) else at.index
    return {
        "memorised": memorised,
        "formed": int(high[-1]) if high[-1] < at.index[-1] else None,
        "cleaned_up": int(after[0]) if len(after) else None,
    }


def _learning_phases(loss: Any) -> dict[str, int | None]:
    """Return the phases of a run from its test loss by checkpoint."""
    fall = loss.iloc[0] - loss.min()
    low = loss.index[loss <= loss.iloc[0] - PLATEAU * fall]
    return {"learned": int(low[0]), "best": int(loss.idxmin())} if fall > 0 else {}
