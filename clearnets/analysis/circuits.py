"""Tables of circuits (`clearnets circuits`).

| table | one row per |
|---|---|
| circuit_tasks | family, seed, task: how well its model answers, and what effects sum to |
| circuits | family, seed, task, kind of circuit, size: faithfulness with its interval over pairs |
| circuit_sizes | family, task: latents needed, and what error nodes carry, pooled over seeds |
| circuit_legibility | family, scorer: scores of latents in circuits against the others |

Faithfulness is (circuit - none) / (model - none), of mean logit differences, where none has all
nodes at their mean: 0 with no node, 1 with all. Completeness is the same of all nodes but the
circuit's, kind `without`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of, ordered, pick, records, sort
from clearnets.analysis.samples import bootstrap, interval
from clearnets.analysis.sources import SCORERS, Circuits
from clearnets.config import Config

SIZED = ("kept", "alone", "without", "random")
"""Kinds of circuit of several sizes."""
WANTED = (0.8, 0.9)
"""Faithfulness for which the latents that are needed are counted."""
TASK_COLUMNS = (
    *("family", "seed", "task", "pairs", "length", "accuracy", "difference", "low", "high", "done"),
    *("whole", "none", "integrated", "errors", "nodes", "integrated_rank", "patching_rank"),
)
COLUMNS = (
    *("family", "seed", "task", "circuit", "nodes", "pairs", "difference"),
    *("faithfulness", "low", "high", "confidence"),
)
SIZE_COLUMNS = (
    *("family", "task", "pairs", "errors", "errors_low", "errors_high"),
    *("latents", "latents_low", "latents_high"),
    *(f"nodes_{wanted * 100:.0f}{end}" for wanted in WANTED for end in ("", "_low", "_high")),
    "confidence",
)
LEGIBILITY_COLUMNS = (
    *("family", "scorer", "inside", "outside", "mean_inside", "mean_outside"),
    *("difference", "low", "high", "confidence"),
)


def tables(found: Circuits, judged: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables by name.

    Args:
        found: what `clearnets circuits` wrote.
        judged: latents with their scores by rules.
    """
    answers = columns_of(found.answers, TASK_COLUMNS)
    done = pick(answers, done=True)
    faithful, sizes = [], []
    for names, curves in _by_task(found.circuits, ["family", "seed", "task"]):
        faithful += [names | row for row in _faithful(curves, config)]
    for names, curves in _by_task(found.circuits, ["family", "task"]):
        if len(pick(done, **names)):
            sizes.append(names | _sizes(curves, config))
    legible = [
        _legibility(found, pick(judged, family=family), family, scorer, config)
        for family, scorer in product(ordered(set(answers["family"])), SCORERS)
    ]
    return {
        "circuit_tasks": sort(answers, ["family", "seed"]),
        "circuits": pd.DataFrame(faithful, columns=pd.Index(COLUMNS)),
        "circuit_sizes": pd.DataFrame(sizes, columns=pd.Index(SIZE_COLUMNS)),
        "circuit_legibility": pd.DataFrame(legible, columns=pd.Index(LEGIBILITY_COLUMNS)),
    }


def _by_task(curves: pd.DataFrame, keys: list[str]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the circuits of each family and task."""
    if curves.empty:
        return
    every = sort(columns_of(curves, keys).drop_duplicates(), ["family"])
    for names in records(every):
        yield names, pick(curves, **names)


def _faithful(curves: pd.DataFrame, config: Config) -> Iterator[dict[str, Any]]:
    """Yield a row per kind of circuit and size."""
    drawn = _Drawn(curves, config)
    for row in records(curves):
        if row["circuit"] not in ("whole", "none"):
            size = row["nodes"] if row["circuit"] in SIZED else 0
            estimate = drawn.faithfulness(row["circuit"], size)
            yield {
                "circuit": row["circuit"],
                "nodes": row["nodes"],
                "pairs": len(row["difference"]),
                "difference": np.mean(row["difference"]),
                **estimate.columns("faithfulness"),
                "confidence": config.collate.confidence,
            }


class _Drawn:
    """Differences of one family and task by pair; of several seeds one after the other."""

    def __init__(self, curves: pd.DataFrame, config: Config) -> None:
        parts: dict[tuple[str, int], list[float]] = {}
        for row in records(curves):
            size = row["nodes"] if row["circuit"] in SIZED else 0
            parts.setdefault((row["circuit"], size), []).extend(row["difference"])
        self._none = np.array(parts["none", 0])
        # A size that not all seeds have, because few latents have an effect, is left out.
        self._parts = {
            key: np.array(values) - self._none
            for key, values in parts.items()
            if len(values) == len(self._none)
        }
        names = [str(value) for key in ("family", "task") for value in curves[key].unique()]
        how = bootstrap(config.collate, "circuits", *names)
        self._index_RP = how["rng"].integers(0, self.pairs, (how["resamples"], self.pairs))
        self._confidence = config.collate.confidence

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self._none)

    def draws(self, kind: str, size: int = 0) -> tuple[float, np.ndarray]:
        """Return the faithfulness of a circuit, and draws of it over pairs."""
        part, whole = self._parts[kind, size], self._parts["whole", 0]
        drawn = part[self._index_RP].mean(1) / whole[self._index_RP].mean(1)
        return float(part.mean() / whole.mean()), drawn

    def faithfulness(self, kind: str, size: int = 0) -> stats.Estimate:
        """Return it with its interval."""
        return stats.percentile_interval(*self.draws(kind, size), self._confidence)

    def sizes(self, kind: str) -> list[int]:
        """Return the sizes of the circuits of a kind, rising; none where there are none."""
        return sorted(size for own, size in self._parts if own == kind)


def _sizes(curves: pd.DataFrame, config: Config) -> dict[str, Any]:
    """Return how many latents a faithful circuit needs, and what errors carry."""
    drawn, confidence = _Drawn(curves, config), config.collate.confidence
    row: dict[str, Any] = {"pairs": drawn.pairs, "confidence": confidence}
    for kind, without in (("errors", 0.0), ("latents", 1.0)):
        there = drawn.sizes(kind)
        found = drawn.faithfulness(kind) if there else stats.Estimate(without, without, without)
        row |= found.columns(kind, f"{kind}_")
    sizes = drawn.sizes("kept")
    values, draws = zip(*(drawn.draws("kept", size) for size in sizes))
    for wanted in WANTED:
        name = f"nodes_{wanted * 100:.0f}"
        row[name] = _finite(_needed(np.array([values]), sizes, wanted)[0])
        least_R = _needed(np.stack(draws, axis=1), sizes, wanted)
        for end, share in (("low", (1 - confidence) / 2), ("high", (1 + confidence) / 2)):
            row[f"{name}_{end}"] = _finite(np.quantile(least_R, share, method="nearest"))
    return row


def _needed(values_RZ: np.ndarray, sizes: list[int], wanted: float) -> np.ndarray:
    """Return the least number of latents with at least `wanted`, (R,): between two sizes by a line
    over their logarithm; infinite where no circuit has it."""
    log_Z, found = np.log(sizes), np.full(len(values_RZ), np.inf)
    for row, values in enumerate(values_RZ):
        at = int(np.argmax(values >= wanted))
        if values[at] >= wanted:
            before = max(at - 1, 0)
            rise = values[at] - values[before]
            share = (wanted - values[before]) / rise if rise > 0 else 0.0
            found[row] = np.exp(log_Z[before] + share * (log_Z[at] - log_Z[before]))
    return found


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else float("nan")


def _legibility(
    found: Circuits, judged: pd.DataFrame, family: str, scorer: str, config: Config
) -> dict[str, Any]:
    """Return the mean scores of latents that are among the largest of a task that the model can do,
    and of the others."""
    keys = ["family", "seed", "layer", "latent"]
    row: dict[str, Any] = {"family": family, "scorer": scorer}
    row["confidence"] = config.collate.confidence
    can = columns_of(pick(found.answers, done=True), ["family", "seed", "task"])
    inside: Any = found.nodes.merge(can)[keys].drop_duplicates() if len(found.nodes) else can
    judged = judged.dropna(subset=[scorer])
    if inside.empty or judged.empty:
        return row | {"inside": 0, "outside": len(judged)}
    known = judged.merge(inside.assign(inside=True), how="left", on=keys)
    parts: list[Any] = [known[known["inside"].notna() == side] for side in (True, False)]
    row |= {"inside": len(parts[0]), "outside": len(parts[1])}
    if not all(map(len, parts)):
        return row
    draws, means = [], []
    for part in parts:
        strata = stats.strata_ids(*(part[key].to_numpy(np.int64) for key in ("seed", "layer")))
        value = part[scorer].to_numpy(np.float64)
        how = bootstrap(config.collate, "legibility", family, scorer, str(len(draws)))
        draws.append(stats.mean_draws(value, strata, resamples=how["resamples"], rng=how["rng"]))
        means.append(float(value.mean()))
    gap = stats.percentile_interval(
        means[0] - means[1], draws[0] - draws[1], config.collate.confidence
    )
    gap = interval(gap, config.collate, len(parts[0]), len(parts[1]))
    return row | {"mean_inside": means[0], "mean_outside": means[1], **gap.columns("difference")}
