"""The tables that answer the question: when metrics move, and how well they rank runs. No torch.

From three tidy tables of any number of tasks:

| table | one row per |
|---|---|
| curves | task, run, seed, variant, step: train_loss, train_accuracy, test_loss, test_accuracy |
| measures | task, run, step, hookpoint, metric: value |
| runs | task, run, seed, variant, any settings: the curves' last values, gap; perhaps `reached` |

A metric with several hookpoints is their mean. Checkpoints are the steps with measures, and the
curves are read at these alone, so that everything is seen equally finely.

Shape suffixes: S runs of unlike seeds, M metrics, T checkpoints, R combinations of settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearnets.analysis.frames import pick, records
from clearnets.analysis.statistics import Estimate
from clearnets.config import Config
from clearnets.generalization import change_points, observed
from clearnets.pipeline.runtime import seed_for

Floats = NDArray[np.float64]

REFERENCES = ("train_loss", "train_accuracy", "test_accuracy")
RUN_COLUMNS = (
    *("task", "run", "seed", "variant"),
    *("step", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "gap", "reached"),
)
INPUTS = {
    "runs": RUN_COLUMNS,
    "curves": ("task", "run", "seed", "variant", "step", *REFERENCES, "test_loss"),
    "measures": ("task", "run", "step", "hookpoint", "metric", "value"),
}
# Fewer combinations of settings than this are not ranked: chance alone orders so few too well.
MIN_RUNS = 8
# Checkpoints of which the widest distance is this many times the narrowest are on a log scale.
LOG_SPACED = 5.0
LEVEL = 0.05
KINDS = ("measure", "reference")

LEAD_COLUMNS = (
    *("task", "variant", "setting", "kind", "metric", "seeds", "checkpoints", "unit"),
    *("leg", "leg_start", "leg_end", "span_start", "span_end", "span_checkpoints"),
    *(f"{name}{end}" for name in ("change", "loss_change") for end in ("", "_low", "_high")),
    *(f"{name}{end}" for name in ("lead", "onset_lead") for end in ("", "_low", "_high")),
    *("tolerance", "explained", "loss_explained", "loss_before", "loss_after"),
    *("p", "adjusted", "verdict"),
    *("together", "together_p", "together_adjusted", "confidence"),
)
RANKING_COLUMNS = (
    *("task", "rank", "kind", "metric", "runs", "not_reached"),
    *("tau", "tau_low", "tau_high", "tau_p", "tau_adjusted", "tau_band"),
    *("score", "score_p", "score_adjusted", "score_band", "holds"),
    *("permutations", "confidence"),
)


def make(config: Config) -> dict[str, pd.DataFrame]:
    """Return every table of the tasks by name, without rows where the experiment has no tasks.

    | table | one row per |
    |---|---|
    | generalization_... | see `clearnets.generalization.observed` |
    | generalization_leads | task, group of runs, metric: whether it moves before the test loss |
    | generalization_ranking | task, metric: how well it orders runs by their gap |
    """
    made = observed.tables(config)
    made |= tables(config, made)
    runs, measures = (made[f"generalization_{name}"] for name in ("runs", "measures"))
    return made | {
        "generalization_runs": labelled(runs, measures),
        "generalization_measures": observed.wide(measures),
    }


def tables(config: Config, made: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables of leads and of the ranking, from those of `observed.tables`."""
    runs, curves, measures = (
        made.get(f"generalization_{name}", pd.DataFrame(columns=list(columns)))
        for name, columns in INPUTS.items()
    )
    options: Any = {
        "resamples": config.collate.resamples,
        "confidence": config.collate.confidence,
        "seed": config.collate.seed,
    }
    return {
        "generalization_leads": leads(runs, curves, measures, **options),
        "generalization_ranking": ranking(
            runs, measures, permutations=config.collate.resamples, **options
        ),
    }


def leads(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    measures: pd.DataFrame,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """One row per group of runs that differ in their seed alone and per metric: `LEAD_COLUMNS`.

    `leg`: whether the question is of where the test loss falls or of where it rises: the larger
    movement of those that are a change of level in most seeds, or of both where neither is;
    `leg_start`, `leg_end`: its first and last step. `span_start`, `span_end`: the steps between
    which metrics are asked, as long before the loss's change as after it on the scale of time, with
    `span_checkpoints` of them. All of these are the middle one of the seeds.
    `change`, `loss_change`: the step of the metric's and of the test loss's transition; on a log
    scale the geometric mean over seeds. `lead` is the second minus the first, paired by seed, in
    `unit`: steps, or decades of steps where checkpoints are on a log scale; above 0 the metric
    moves first. `onset_lead`: the same of the transitions' beginnings. `tolerance`: the middle
    distance of neighbouring checkpoints in the spans. `explained`, `loss_explained`: share of the
    metric's and of the loss's variance in there that its transition explains; `loss_before`,
    `loss_after`: the loss's two levels, in nats; of all four the middle one of the seeds. The
    verdict is `no change` unless in more than half of the seeds both series have a transition that
    is one: it explains at least `change_points.MIN_EXPLAINED`, and leaves at most half of what a
    straight line leaves.
    `p`, `adjusted`, `verdict`, `together`: see `clearnets.generalization.change_points`; corrected
    over the measures of a group, or over its references (`kind`), which are the other curves.
    `together` is of the whole run. Groups of a single run are left out.
    """
    rows: list[dict[str, Any]] = []
    for names, group in _groups(runs):
        members = [_Member(run, curves, measures) for run in records(group)]
        if len(members) < 2 or min(len(m.steps) for m in members) < 2 * change_points.MIN_LEVEL:
            continue
        logarithmic = all(_is_log_spaced(m.steps) for m in members)
        times = [np.log10(1 + m.steps) if logarithmic else m.steps + 0.0 for m in members]
        shared = {
            **names,
            "seeds": len(members),
            "checkpoints": min(len(m.steps) for m in members),
            "unit": "decades" if logarithmic else "steps",
            "confidence": confidence,
        }
        rng = np.random.default_rng(seed_for(seed, "generalization", "leads", *names.values()))
        options: Any = {"resamples": resamples, "confidence": confidence, "rng": rng}
        losses = [member.loss_T for member in members]
        asked = _asked(times, losses)
        of_loss = asked.of_loss
        moved = change_points.over_seeds([loss.middle for loss in of_loss], **options)
        shared |= {
            **asked.columns([member.steps for member in members]),
            **_columns("loss_change", moved),
            "loss_explained": _middle([loss.explained for loss in of_loss]),
            "loss_before": _middle([loss.before for loss in of_loss]),
            "loss_after": _middle([loss.after for loss in of_loss]),
        }
        for kind in KINDS:
            tables = [member.series(kind) for member in members]
            metrics = [m for m in tables[0] if all(m in table for table in tables)]
            if not metrics:
                continue
            series = [table[metrics].to_numpy(np.float64).T for table in tables]
            found = _leads(times, losses, asked, series, options)
            for metric, row in zip(metrics, found):
                rows.append({**shared, "kind": kind, "metric": metric, **row})
    table = pd.DataFrame(rows, columns=list(LEAD_COLUMNS))
    decades = table["unit"] == "decades"
    for name in (column for column in LEAD_COLUMNS if "change" in column):
        table.loc[decades, name] = 10 ** table.loc[decades, name].astype(float) - 1
    return table


@dataclass(frozen=True)
class _Asked:
    """What the question is asked of in each run of a group: a leg of its loss, and the span around
    the loss's change."""

    rising: bool
    legs: list[slice]
    of_loss: list[change_points.Transition]
    spans: list[slice]

    def columns(self, steps: list[NDArray[np.int64]]) -> dict[str, Any]:
        """For the table, the middle seed's."""
        found: dict[str, Any] = {"leg": "rise" if self.rising else "fall"}
        for name, parts in (("leg", self.legs), ("span", self.spans)):
            own = [steps_T[part] for steps_T, part in zip(steps, parts) if steps_T[part].size]
            found[f"{name}_start"] = _middle([steps_T[0] for steps_T in own])
            found[f"{name}_end"] = _middle([steps_T[-1] for steps_T in own])
        found["span_checkpoints"] = _middle([part.stop - part.start for part in self.spans])
        return found

    def tolerance(self, times: list[Floats]) -> float:
        """The middle distance of neighbouring checkpoints in the spans; in the runs without any."""
        inside = [np.diff(t[span]) for t, span in zip(times, self.spans)]
        found = inside if any(map(len, inside)) else [np.diff(t) for t in times]
        return float(np.median(np.concatenate(found)))


def _asked(times: list[Floats], losses: list[Floats]) -> _Asked:
    """The direction in which the losses of a group move most, over the seeds, of those in which
    most of them change level; chosen by the losses alone."""
    found = []
    for rising in (False, True):
        legs = [change_points.leg(loss, rising=rising) for loss in losses]
        of_loss = [change_points.of_leg(t, loss, rising=rising) for t, loss in zip(times, losses)]
        moved = sum(np.ptp(loss[part]) for loss, part in zip(losses, legs) if loss[part].size)
        changes = 2 * sum(loss.is_one for loss in of_loss) > len(of_loss)
        spans = [change_points.around(t, loss.middle) for t, loss in zip(times, of_loss)]
        found.append((changes, moved, _Asked(rising, legs, of_loss, spans)))
    # Of equal movements the fall.
    return max(found, key=lambda one: one[:2])[2]


def _leads(
    times: list[Floats],
    losses: list[Floats],
    asked: _Asked,
    series: list[Floats],
    options: Any,
) -> list[dict[str, Any]]:
    """Rows of `leads` of one group, in the order of the metrics; changes on the scale of times."""
    of_loss, tolerance = asked.of_loss, asked.tolerance(times)
    together = change_points.together(
        losses, series, draws=options["resamples"], rng=options["rng"]
    )
    rows: list[dict[str, Any]] = []
    changed: list[bool] = []
    estimates: list[Estimate] = []
    p_values: list[float] = []
    for metric in range(len(series[0])):
        found = [
            change_points.near_change(t, s[metric], loss)
            for t, s, loss in zip(times, series, of_loss)
        ]
        lead_S = [loss.middle - own.middle for loss, own in zip(of_loss, found)]
        onset_S = [loss.onset - own.onset for loss, own in zip(of_loss, found)]
        estimates.append(change_points.over_seeds(lead_S, **options))
        p_values.append(change_points.no_lead(lead_S, resolution=tolerance))
        changes = {
            "change": change_points.over_seeds([own.middle for own in found], **options),
            "lead": estimates[-1],
            "onset_lead": change_points.over_seeds(onset_S, **options),
        }
        row: dict[str, Any] = {"tolerance": tolerance, "p": p_values[-1]}
        for name, estimate in changes.items():
            row |= _columns(name, estimate)
        row["explained"] = _middle([own.explained for own in found])
        both_S = [loss.is_one and own.is_one for loss, own in zip(of_loss, found)]
        changed.append(2 * sum(both_S) > len(both_S))
        row["together"] = together.correlation_M[metric]
        row["together_p"] = together.p_M[metric]
        row["together_adjusted"] = together.adjusted_M[metric]
        rows.append(row)
    for row, estimate, adjusted, clear in zip(
        rows, estimates, change_points.holm(p_values), changed
    ):
        row["adjusted"] = adjusted
        row["verdict"] = (
            change_points.verdict(estimate, adjusted, tolerance=tolerance, level=LEVEL)
            if clear
            else "no change"
        )
    return rows


def _middle(values_S: list[float]) -> float:
    there_S = [value for value in values_S if np.isfinite(value)]
    return float(np.median(there_S)) if there_S else np.nan


def ranking(
    runs: pd.DataFrame,
    measures: pd.DataFrame,
    *,
    permutations: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """One row per task with at least `MIN_RUNS` combinations of settings and per metric.

    Metrics are those of each run's last checkpoint. Runs that did not reach the training loss that
    all were to reach (`reached` is false), or have no gap, are left out and counted. Runs that
    differ in their seed alone count as one, by their means. `kind` tells the measures from
    references that they should beat: the settings themselves where they are numbers, and the
    training loss. `rank`: by |τ| within the kind. `holds`: which of τ and the score exceeds its
    null at 5 %, corrected over the
    kind; see `clearnets.generalization.change_points`. Columns: `RANKING_COLUMNS`.
    """
    frames: list[pd.DataFrame] = []
    for task, of_task in runs.groupby("task", sort=False):
        kept: Any = of_task.dropna(subset=["gap"]).set_index("run")
        if "reached" in kept:
            kept = kept[kept["reached"].astype(bool)]
        settings = [name for name in settings_of(runs) if kept[name].nunique(dropna=False) > 1]
        if not settings:
            continue
        alike = kept.groupby(settings, dropna=False, sort=False).ngroup()
        if alike.nunique() < MIN_RUNS:
            continue
        first = kept.groupby(alike).first()[settings]
        codes_RH = np.stack([pd.factorize(first[name])[0] for name in settings], axis=1)
        gap_R = kept["gap"].groupby(alike).mean().to_numpy(np.float64)
        numbers = [name for name in settings if pd.api.types.is_numeric_dtype(kept[name])]
        tables = {
            "measure": _last(kept.index, pick(measures, task=task)),
            "reference": kept[[*numbers, "train_loss"]].astype(float),
        }
        for kind in KINDS:
            merged = tables[kind].groupby(alike).mean()
            rng = np.random.default_rng(seed_for(seed, "generalization", "rank", str(task), kind))
            found = change_points.rank(
                merged.to_numpy(np.float64).T,
                gap_R,
                codes_RH,
                permutations=permutations,
                resamples=resamples,
                confidence=confidence,
                rng=rng,
            )
            frame = _ranked(list(merged.columns), found)
            frame = frame.assign(
                task=task,
                kind=kind,
                runs=len(merged),
                not_reached=len(of_task) - len(kept),
                permutations=permutations,
                confidence=confidence,
            )
            frames.append(frame)
    every = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    return cast(pd.DataFrame, every.reindex(columns=list(RANKING_COLUMNS)))


def _ranked(metrics: list[str], found: change_points.Ranking) -> pd.DataFrame:
    """Metrics by |τ|, highest first; those without a rank at the end, in their order."""
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


def settings_of(runs: pd.DataFrame) -> list[str]:
    """The columns that say how a run was made, but for its seed."""
    return ["variant", *(name for name in runs if name not in RUN_COLUMNS)]


def labelled(runs: pd.DataFrame, measures: pd.DataFrame) -> pd.DataFrame:
    """`runs` with what figures need to know of them: `group`, the variant and the settings, which
    runs that differ in their seed alone have in common; `log_steps`, whether a run's checkpoints
    are on a log scale."""
    label = pd.Series("", index=runs.index)
    for names, group in _groups(runs):
        label[group.index] = ", ".join(filter(None, (names["variant"], names["setting"])))
    steps: Any = measures.groupby(["task", "run"])["step"].unique()
    steps_R = [np.sort(steps.get(key, ())) for key in zip(runs["task"], runs["run"])]
    spaced = [len(steps_T) > 2 and _is_log_spaced(steps_T) for steps_T in steps_R]
    return runs.assign(group=label, log_steps=spaced)


def _groups(runs: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Runs that differ in their seed alone, with the task, variant and settings as text."""
    keys = ["task", *settings_of(runs)]
    grouped: Any = runs.groupby(keys, dropna=False, sort=False)
    for values, group in grouped:
        named = dict(zip(keys, values))
        task, variant = named.pop("task"), named.pop("variant")
        # What no run of this task changes says nothing; another task's settings are empty here.
        of_task: Any = pick(runs, task=task)
        differ = {k: v for k, v in named.items() if of_task[k].nunique(dropna=False) > 1}
        text = ", ".join(f"{name} {_plain(value)}" for name, value in differ.items())
        yield {"task": str(task), "variant": str(variant), "setting": text}, group


def _plain(value: object) -> str:
    """As it stands in the parameters: whole numbers became floats beside tasks without them."""
    return f"{value:g}" if isinstance(value, float) else str(value)


class _Member:
    """The curves and measures of one run at its checkpoints."""

    def __init__(self, run: dict[str, Any], curves: pd.DataFrame, measures: pd.DataFrame) -> None:
        own = pick(measures, task=run["task"], run=run["run"])
        self._measures: Any = own.pivot_table(
            index="step", columns="metric", values="value", aggfunc="mean", sort=False, dropna=False
        ).sort_index()
        at: Any = pick(curves, task=run["task"], run=run["run"]).set_index("step")
        self._curves: Any = at.reindex(self._measures.index)
        self.steps = self._measures.index.to_numpy(np.int64)
        self.loss_T = self._curves["test_loss"].to_numpy(np.float64)

    def series(self, kind: str) -> pd.DataFrame:
        """By metric a column over the checkpoints."""
        return self._measures if kind == "measure" else self._curves[list(REFERENCES)]


def _last(runs: pd.Index, measures: pd.DataFrame) -> pd.DataFrame:
    """By run and metric the value at the run's last checkpoint."""
    own: Any = measures[measures["run"].isin(list(runs))]
    own = own[own["step"] == own.groupby("run")["step"].transform("max")]
    wide = own.pivot_table(
        index="run", columns="metric", values="value", aggfunc="mean", sort=False, dropna=False
    )
    return wide.reindex(runs)


def _is_log_spaced(steps_T: NDArray[np.int64]) -> bool:
    distances = np.diff(steps_T)
    return bool(distances.max() > LOG_SPACED * distances.min())


def _columns(name: str, estimate: Estimate) -> dict[str, float]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
