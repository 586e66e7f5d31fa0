"""The table of leads: whether each metric changes level before, with or after the test loss.

Checkpoints are the steps with measures. The curves are read at these alone, so that change points
of the loss are as coarse as those of the metrics.

Shape suffixes: S runs of different seeds, M metrics, T checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clearnets.analysis.frames import pick, records
from clearnets.analysis.multiple_testing import holm
from clearnets.analysis.statistics import Estimate
from clearnets.generalization import change_points
from clearnets.generalization.change_points import Transition
from clearnets.generalization.runs import KINDS, LEVEL, by_metric, is_log_spaced, seed_groups
from clearnets.pipeline.runtime import seed_for

Floats = NDArray[np.float64]
Row = dict[str, Any]

REFERENCES = ("train_loss", "train_accuracy", "test_accuracy")
COLUMNS = (
    *("task", "variant", "setting", "kind", "metric", "seeds", "checkpoints", "unit"),
    *("leg", "leg_start", "leg_end", "span_start", "span_end", "span_checkpoints"),
    *(f"{name}{end}" for name in ("change", "loss_change") for end in ("", "_low", "_high")),
    *(f"{name}{end}" for name in ("lead", "onset_lead") for end in ("", "_low", "_high")),
    *("tolerance", "explained", "loss_explained", "loss_before", "loss_after"),
    *("p", "adjusted", "verdict"),
    *("together", "together_p", "together_adjusted", "confidence"),
)


def leads(
    runs: pd.DataFrame,
    curves: pd.DataFrame,
    measures: pd.DataFrame,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> pd.DataFrame:
    """Return a row per metric and group of runs that differ only in their seed: `COLUMNS`.

    Groups of a single run are left out. Values of single seeds are given as their median.

    - `leg`: `fall` or `rise`, the segment of the test loss that is analysed: the larger of those
      that change level in most seeds, or of both where neither does; from `leg_start` to `leg_end`.
    - `span_start`, `span_end`: the steps of the window around the loss's change point, which holds
      `span_checkpoints`.
    - `change`, `loss_change`: the change points' step; on a log scale a geometric mean over seeds.
    - `lead`: the loss's change point minus the metric's, paired by seed, in `unit`: steps, or
      decades of steps where checkpoints are on a log scale; above 0 the metric changes first.
      `onset_lead`: the same of the transitions' onsets.
    - `tolerance`: the median distance of neighbouring checkpoints in the windows.
    - `explained`, `loss_explained`: share of the variance that the transition explains;
      `loss_before`, `loss_after`: the loss's two levels, in nats.
    - `p`, `adjusted`: p-value of a lead of 0, and corrected over the metrics of a `kind`.
    - `verdict`: `no change` unless metric and loss both change level in more than half of the
      seeds; else see `change_points.verdict`.
    - `together...`: see `change_points.comovement`; of the whole run.
    """
    rows: list[Row] = []
    for names, group in seed_groups(runs):
        members = [_Run(run, curves, measures) for run in records(group)]
        if len(members) < 2 or min(len(m.steps) for m in members) < 2 * change_points.MIN_LEVEL:
            continue
        rng = np.random.default_rng(seed_for(seed, "generalization", "leads", *names.values()))
        options: Any = {"resamples": resamples, "confidence": confidence, "rng": rng}
        rows += [{**names, **row} for row in _Group(members, options).rows()]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    decades = table["unit"] == "decades"
    for name in (column for column in COLUMNS if "change" in column):
        table.loc[decades, name] = 10 ** table.loc[decades, name].astype(float) - 1
    return table


class _Run:
    """The curves and measures of one run at its checkpoints."""

    def __init__(self, run: Row, curves: pd.DataFrame, measures: pd.DataFrame) -> None:
        self._measures = by_metric(pick(measures, task=run["task"], run=run["run"]), "step")
        self._measures = self._measures.sort_index()
        at: Any = pick(curves, task=run["task"], run=run["run"]).set_index("step")
        self._curves: Any = at.reindex(self._measures.index)
        self.steps = self._measures.index.to_numpy(np.int64)
        self.loss_T = self._curves["test_loss"].to_numpy(np.float64)

    def series(self, kind: str) -> pd.DataFrame:
        """Return a column over the checkpoints for each metric."""
        return self._measures if kind == "measure" else self._curves[list(REFERENCES)]


@dataclass(frozen=True)
class _Segment:
    """The part of each run's test loss that is analysed, and the window around its change."""

    rising: bool
    parts: list[slice]
    transitions: list[Transition]
    windows: list[slice]

    @property
    def changes_level(self) -> bool:
        """Whether the loss changes level in most seeds."""
        return _most([loss.changes_level for loss in self.transitions])

    def columns(self, steps: list[NDArray[np.int64]]) -> Row:
        """Return the columns that describe the segment and the window: the seeds' medians."""
        found: Row = {"leg": "rise" if self.rising else "fall"}
        for name, parts in (("leg", self.parts), ("span", self.windows)):
            own = [steps_T[part] for steps_T, part in zip(steps, parts) if steps_T[part].size]
            found[f"{name}_start"] = _median([steps_T[0] for steps_T in own])
            found[f"{name}_end"] = _median([steps_T[-1] for steps_T in own])
        found["span_checkpoints"] = _median([part.stop - part.start for part in self.windows])
        for name in ("explained", "before", "after"):
            found[f"loss_{name}"] = _median([getattr(loss, name) for loss in self.transitions])
        return found

    def tolerance(self, times: list[Floats]) -> float:
        """Return the median distance of checkpoints in the windows, or in the runs without any."""
        inside = [np.diff(t[window]) for t, window in zip(times, self.windows)]
        found = inside if any(map(len, inside)) else [np.diff(t) for t in times]
        return float(np.median(np.concatenate(found)))


class _Group:
    """Runs that differ only in their seed.

    Attributes:
        times: of each run (T,), steps or decades of steps.
        losses: of each run (T,).
        segment: the part of the losses that is analysed; chosen by the losses alone.
    """

    def __init__(self, members: list[_Run], options: Any) -> None:
        self._members, self._options = members, options
        self._log = all(is_log_spaced(m.steps) for m in members)
        self.times = [np.log10(1 + m.steps) if self._log else m.steps + 0.0 for m in members]
        self.losses = [member.loss_T for member in members]
        # Of equal movements the fall.
        both = [self._segment(rising=rising) for rising in (False, True)]
        self.segment = max(both, key=lambda one: (one.changes_level, self._movement(one)))

    def _segment(self, *, rising: bool) -> _Segment:
        pairs = list(zip(self.times, self.losses))
        parts = [change_points.largest_segment(loss, rising=rising) for loss in self.losses]
        losses = [change_points.segment_transition(*pair, rising=rising) for pair in pairs]
        windows = [
            change_points.window_around(t, loss.middle) for t, loss in zip(self.times, losses)
        ]
        return _Segment(rising, parts, losses, windows)

    def _movement(self, segment: _Segment) -> float:
        """Return the losses' range in the segment, summed over seeds."""
        pairs = zip(self.losses, segment.parts)
        return sum(np.ptp(loss[part]) for loss, part in pairs if loss[part].size)

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all metrics; changes are on the scale of the times."""
        middles = [loss.middle for loss in self.segment.transitions]
        shared = {
            "seeds": len(self._members),
            "checkpoints": min(len(m.steps) for m in self._members),
            "unit": "decades" if self._log else "steps",
            "confidence": self._options["confidence"],
            **self.segment.columns([member.steps for member in self._members]),
            **self._mean("loss_change", middles),
        }
        for kind in KINDS:
            tables = [member.series(kind) for member in self._members]
            metrics = [m for m in tables[0] if all(m in table for table in tables)]
            if metrics:
                series = [table[metrics].to_numpy(np.float64).T for table in tables]
                for metric, row in zip(metrics, self._metric_rows(series)):
                    yield {**shared, "kind": kind, "metric": metric, **row}

    def _metric_rows(self, series: list[Floats]) -> list[Row]:
        """Return a row for each metric, of which `series` has the values (M, T) of each seed."""
        tolerance = self.segment.tolerance(self.times)
        moving = change_points.comovement(
            self.losses, series, draws=self._options["resamples"], rng=self._options["rng"]
        )
        rows: list[Row] = []
        changed: list[bool] = []
        for metric in range(len(series[0])):
            found = [
                change_points.window_transition(t, s[metric], loss)
                for t, s, loss in zip(self.times, series, self.segment.transitions)
            ]
            pairs = list(zip(self.segment.transitions, found))
            changed.append(_most([loss.changes_level and own.changes_level for loss, own in pairs]))
            lead_S = [loss.middle - own.middle for loss, own in pairs]
            row = {
                **self._mean("lead", lead_S),
                **self._mean("change", [own.middle for own in found]),
                **self._mean("onset_lead", [loss.onset - own.onset for loss, own in pairs]),
                "p": change_points.lead_p_value(lead_S, resolution=tolerance),
                "tolerance": tolerance,
                "explained": _median([own.explained for own in found]),
                "together": moving.correlation_M[metric],
                "together_p": moving.p_M[metric],
                "together_adjusted": moving.adjusted_M[metric],
            }
            rows.append(row)
        adjusted_M = holm([row["p"] for row in rows])
        for row, adjusted, clear in zip(rows, adjusted_M, changed):
            lead = Estimate(row["lead"], row["lead_low"], row["lead_high"])
            verdict = change_points.verdict(lead, adjusted, tolerance=tolerance, level=LEVEL)
            row |= {"adjusted": adjusted, "verdict": verdict if clear else "no change"}
        return rows

    def _mean(self, name: str, values_S: list[float]) -> dict[str, float]:
        """Return the mean over seeds and its interval as three columns."""
        mean = change_points.mean_over_seeds(values_S, **self._options)
        return {name: mean.value, f"{name}_low": mean.low, f"{name}_high": mean.high}


def _most(true_S: list[bool]) -> bool:
    return 2 * sum(true_S) > len(true_S)


def _median(values_S: Sequence[float]) -> float:
    known_S = [value for value in values_S if np.isfinite(value)]
    return float(np.median(known_S)) if known_S else np.nan
