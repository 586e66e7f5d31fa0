"""Groups of runs that differ only in their seed, and the values of metrics by run. Pandas.

From these tables of any number of tasks:

| table | one row per |
|---|---|
| runs | task, run, seed, variant, any settings: the curves' last values, gap; perhaps `reached` |
| curves | task, run, seed, variant, step: train_loss, train_accuracy, test_loss, test_accuracy |
| measures | task, run, step, hookpoint, metric: value |
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearnets.analysis.frames import pick

RUN_COLUMNS = (
    *("task", "run", "seed", "variant"),
    *("step", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "gap", "reached"),
)
# A metric is a measure of a checkpoint, or a reference that is known without one.
KINDS = ("measure", "reference")
# Level of all tests.
LEVEL = 0.05
# Checkpoints of which the widest distance is this many times the narrowest are on a log scale.
LOG_SPACED = 5.0


def settings_of(runs: pd.DataFrame) -> list[str]:
    """Return the columns that hold a run's settings, without its seed."""
    return ["variant", *(name for name in runs if name not in RUN_COLUMNS)]


def seed_groups(runs: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield runs that differ only in their seed, with their task, variant and setting as text."""
    keys = ["task", *settings_of(runs)]
    grouped: Any = runs.groupby(keys, dropna=False, sort=False)
    for values, group in grouped:
        named = dict(zip(keys, values))
        task, variant = named.pop("task"), named.pop("variant")
        # Only settings that differ within the task; those of other tasks are empty here.
        of_task: Any = pick(runs, task=task)
        differ = {k: v for k, v in named.items() if of_task[k].nunique(dropna=False) > 1}
        text = ", ".join(f"{name} {_plain(value)}" for name, value in differ.items())
        yield {"task": str(task), "variant": str(variant), "setting": text}, group


def _plain(value: object) -> str:
    """Return a setting as in the parameters: empty cells turn whole numbers into floats."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def labelled(runs: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """Return `runs` with the columns `group` and `log_steps`, which figures need.

    `group`: the variant and settings that runs of different seeds have in common. `log_steps`:
    whether a run's checkpoints are on a log scale.
    """
    label = pd.Series("", index=runs.index)
    for names, group in seed_groups(runs):
        label[group.index] = ", ".join(filter(None, (names["variant"], names["setting"])))
    steps: Any = measures.groupby(["task", "run"])["step"].unique()
    steps_R = [np.sort(steps.get(key, ())) for key in zip(runs["task"], runs["run"])]
    spaced = [len(steps_T) > 2 and is_log_spaced(steps_T) for steps_T in steps_R]
    return runs.assign(group=label, log_steps=spaced)


def is_log_spaced(steps_T: NDArray[np.int64]) -> bool:
    """Return whether checkpoints are on a log scale; see `LOG_SPACED`."""
    distances = np.diff(steps_T)
    return bool(distances.max() > LOG_SPACED * distances.min())


def by_metric(measures: pd.DataFrame, index: str) -> pd.DataFrame:
    """Return a column for each metric, the mean over its hookpoints, by `run` or `step`."""
    table: Any = measures.pivot_table(
        index=index, columns="metric", values="value", aggfunc="mean", sort=False, dropna=False
    )
    return table
