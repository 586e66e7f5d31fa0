"""The table of the ranking: how well each metric orders runs by their generalization gap.

Shape suffixes: R combinations of settings, H settings.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets.analysis.frames import pick
from clearnets.generalization.rank_correlation import Ranking, rank
from clearnets.generalization.runs import KINDS, LEVEL, by_metric, settings_of
from clearnets.pipeline.runtime import seed_for

# Fewer combinations of settings than this are not ranked: chance alone orders so few too well.
MIN_RUNS = 8
COLUMNS = (
    *("task", "rank", "kind", "metric", "runs", "not_reached"),
    *("tau", "tau_low", "tau_high", "tau_p", "tau_adjusted", "tau_band"),
    *("score", "score_p", "score_adjusted", "score_band", "holds"),
    *("permutations", "confidence"),
)


def ranking(
    runs: pd.DataFrame,
    measures: pd.DataFrame,
    *,
    permutations: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Return a row per task with at least `MIN_RUNS` combinations of settings and per metric.

    Metrics are those of each run's last checkpoint. Runs that did not reach the training loss that
    all were to reach (`reached` is false), or have no gap, are left out and counted. Runs that
    differ only in their seed count as one, by their means. `kind` separates the measures from the
    references that they should beat: the settings themselves where they are numbers, and the
    training loss. `rank`: by |τ| within the kind. `holds`: which of τ and the score exceeds its
    null at the level `LEVEL`, corrected over the kind; see `rank_correlation`. Columns: `COLUMNS`.
    """
    options = {"permutations": permutations, "resamples": resamples, "confidence": confidence}
    frames: list[pd.DataFrame] = []
    for task, of_task in runs.groupby("task", sort=False):
        usable: Any = of_task.dropna(subset=["gap"]).set_index("run")
        if "reached" in usable:
            usable = usable[usable["reached"].astype(bool)]
        settings = [name for name in settings_of(runs) if usable[name].nunique(dropna=False) > 1]
        numbers = [name for name in settings if pd.api.types.is_numeric_dtype(usable[name])]
        tables = {
            "measure": _last(usable.index, pick(measures, task=task)),
            "reference": usable[[*numbers, "train_loss"]].astype(float),
        }
        for kind in KINDS if settings else ():
            rng = np.random.default_rng(seed_for(seed, "generalization", "rank", str(task), kind))
            frame = _rank_combinations(usable, settings, tables[kind], rng=rng, **options)
            if not frame.empty:
                missing = len(of_task) - len(usable)
                frames.append(frame.assign(task=task, kind=kind, not_reached=missing))
    every = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return cast(pd.DataFrame, every.reindex(columns=list(COLUMNS)))


def _rank_combinations(
    runs: Any, settings: list[str], metrics: pd.DataFrame, **options: Any
) -> pd.DataFrame:
    """Return the ranking of `metrics`, a column each, over the combinations of settings.

    Without rows below `MIN_RUNS` combinations.
    """
    combination = runs.groupby(settings, dropna=False, sort=False).ngroup()
    if combination.nunique() < MIN_RUNS:
        return pd.DataFrame()
    first = runs.groupby(combination).first()[settings]
    codes_RH = np.stack([pd.factorize(first[name])[0] for name in settings], axis=1)
    gap_R = runs["gap"].groupby(combination).mean().to_numpy(np.float64)
    means: Any = metrics.groupby(combination).mean()
    found = rank(means.to_numpy(np.float64).T, gap_R, codes_RH, **options)
    table = _table(list(means.columns), found)
    shared = {name: options[name] for name in ("permutations", "confidence")}
    return table.assign(runs=len(means), **shared)


def _table(metrics: list[str], found: Ranking) -> pd.DataFrame:
    """Return the metrics by |τ|, highest first; those without a rank come last, in their order."""
    table = pd.DataFrame(
        {
            "metric": metrics,
            "tau": [tau.value for tau in found.tau],
            "tau_low": [tau.low for tau in found.tau],
            "tau_high": [tau.high for tau in found.tau],
            "tau_p": found.tau_p_M,
            "tau_adjusted": found.tau_adjusted_M,
            "tau_band": found.tau_band,
            "score": found.score_M,
            "score_p": found.score_p_M,
            "score_adjusted": found.score_adjusted_M,
            "score_band": found.score_band,
        }
    )
    table["holds"] = [
        {(True, True): "both", (True, False): "tau", (False, True): "score"}.get(pair, "neither")
        for pair in zip(table["tau_adjusted"] <= LEVEL, table["score_adjusted"] <= LEVEL)
    ]
    table = table.sort_values("tau", key=lambda tau: -tau.abs(), kind="stable", ignore_index=True)
    ranked = table["tau"].notna()
    table["rank"] = np.where(ranked, np.arange(1, len(table) + 1), np.nan)
    table.loc[~ranked, "holds"] = "not ranked"
    return table


def _last(runs: pd.Index, measures: pd.DataFrame) -> pd.DataFrame:
    """Return by run and metric the value at the run's last checkpoint."""
    own: Any = measures[measures["run"].isin(list(runs))]
    own = own[own["step"] == own.groupby("run")["step"].transform("max")]
    return by_metric(own, "run").reindex(runs)
