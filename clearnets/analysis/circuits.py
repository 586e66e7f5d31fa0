"""Tables of circuits (`clearnets circuits`).

| table | one row per |
|---|---|
| circuit_tasks | family, seed, task: how well its model answers, and what effects sum to |
| circuits | family, seed, task, kind of circuit, size: faithfulness with its interval over pairs |
| circuit_sizes | family, task: latents needed with error nodes (`nodes_`) and without (`alone_`), \
and what error nodes carry, pooled over seeds |
| circuit_members | family, latent, position: the smallest circuit of one task, of the first seed |
| circuit_legibility | family, scorer: scores of latents in circuits against the others |
| circuit_training | family, seed, step, task: answers and latents needed over training |

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
from clearnets.analysis.samples import bootstrap, interval, layer_strata
from clearnets.analysis.sources import SCORERS, Circuits
from clearnets.config import Config

SIZED = ("kept", "alone", "without", "random")
"""Kinds of circuit of several sizes."""
WANTED = (0.8, 0.9)
"""Faithfulness for which the latents that are needed are counted."""
NEEDED = {"nodes": "kept", "alone": "alone"}
"""Names of the numbers of latents that are needed, by kind of circuit."""
_ENDS = ("", "_low", "_high")
TASK_COLUMNS = (
    *("family", "seed", "task", "pairs", "length", "accuracy", "difference", "low", "high", "done"),
    *("whole", "none", "integrated", "errors", "nodes", "integrated_rank", "patching_rank"),
    "links_rank",
)
COLUMNS = (
    *("family", "seed", "task", "circuit", "nodes", "pairs", "difference"),
    *("faithfulness", "low", "high", "confidence"),
)
SIZE_COLUMNS = (
    *("family", "task", "pairs", "errors", "errors_low", "errors_high"),
    *("latents", "latents_low", "latents_high"),
    *(f"{kind}_{wanted * 100:.0f}{end}" for kind, wanted, end in product(NEEDED, WANTED, _ENDS)),
    "confidence",
)
MEMBER_COLUMNS = (
    *("family", "seed", "task", "errors", "layers", "length", "layer", "position", "token"),
    *("latent", "integrated"),
)
TRAINING_COLUMNS = (
    *("family", "seed", "step", "valid_loss", "task", "pairs", "accuracy", "difference", "done"),
    *("nodes", "nodes_80"),
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
    table = pd.DataFrame(sizes, columns=pd.Index(SIZE_COLUMNS))
    return {
        "circuit_tasks": sort(answers, ["family", "seed"]),
        "circuits": pd.DataFrame(faithful, columns=pd.Index(COLUMNS)),
        "circuit_sizes": table,
        "circuit_members": _members(found, table, config),
        "circuit_training": _training(found.training),
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
    for name, kind in NEEDED.items():
        # Where there are no error nodes, a circuit has none to lose.
        row |= _least(drawn, kind if drawn.sizes(kind) else "kept", name, confidence)
    return row


def _least(drawn: _Drawn, kind: str, name: str, confidence: float) -> dict[str, float]:
    """Return how many latents circuits of a kind need, with intervals."""
    row, sizes = {}, drawn.sizes(kind)
    values, draws = zip(*(drawn.draws(kind, size) for size in sizes))
    for wanted in WANTED:
        column = f"{name}_{wanted * 100:.0f}"
        row[column] = _finite(_needed(np.array([values]), sizes, wanted)[0])
        least_R = _needed(np.stack(draws, axis=1), sizes, wanted)
        for end, share in (("low", (1 - confidence) / 2), ("high", (1 + confidence) / 2)):
            row[f"{column}_{end}"] = _finite(np.quantile(least_R, share, method="nearest"))
    return row


def _members(found: Circuits, sizes: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return the latents of each family's smallest circuit with a faithfulness of 80 %, of the task
    that most families have one of: without error nodes where there is such a circuit, and else with
    all of them (`errors`)."""
    least = sizes["alone_80"].fillna(sizes["nodes_80"])
    there = sizes.assign(least=least, errors=sizes["alone_80"].isna()).dropna(subset=["least"])
    tasks = there["task"].value_counts(sort=False)
    parts = []
    for row in records(pick(there, task=tasks.idxmax())) if len(tasks) else []:
        names = {"family": row["family"], "seed": config.seeds[0], "task": row["task"]}
        (answer,) = records(pick(found.answers, **names))
        own = pick(found.nodes, **names).head(int(np.ceil(row["least"])))
        if not answer["tokens"]:
            continue
        own = own.assign(token=[answer["tokens"][place] for place in own["position"]])
        told = {"layers": config.model.num_layers, "length": len(answer["tokens"])}
        parts.append(columns_of(own.assign(errors=row["errors"], **told), MEMBER_COLUMNS))
    return pd.concat(parts) if parts else pd.DataFrame(columns=pd.Index(MEMBER_COLUMNS))


def _training(rows: pd.DataFrame) -> pd.DataFrame:
    """Return how well models answer at their checkpoints, and how many latents they need for it."""
    made = []
    for row in records(rows):
        kept = row.pop("kept")
        gain = row["whole"] - row["none"] if kept else 0.0
        values = (
            np.array([[(value - row["none"]) / gain for _, value in kept]]) if gain > 0 else None
        )
        least = np.inf if values is None else _needed(values, [n for n, _ in kept], WANTED[0])[0]
        made.append(row | {"nodes_80": _finite(least)})
    made = pd.DataFrame(made, columns=pd.Index(TRAINING_COLUMNS))
    return sort(made, ["family", "seed", "step"])


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
        strata = layer_strata(part)
        value = part[scorer].to_numpy(np.float64)
        how = bootstrap(config.collate, "legibility", family, scorer, str(len(draws)))
        draws.append(stats.mean_draws(value, strata, resamples=how["resamples"], rng=how["rng"]))
        means.append(float(value.mean()))
    gap = stats.percentile_interval(
        means[0] - means[1], draws[0] - draws[1], config.collate.confidence
    )
    gap = interval(gap, config.collate, len(parts[0]), len(parts[1]))
    return row | {"mean_inside": means[0], "mean_outside": means[1], **gap.columns("difference")}
