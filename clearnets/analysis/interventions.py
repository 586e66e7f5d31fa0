"""Tables of interventions on single latents (`clearnets intervene`).

| table | one row per |
|---|---|
| targets | seed, family, concept: what ablating the latent that knows it best moves |
| steering | steered latent: how strongly, and how well its sentence names what moves |
| interventions | family, measure, kind of concept: mean over concepts, or latents |

Intervals are over concepts, or over latents within layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis import effects
from clearnets.analysis import statistics as stats
from clearnets.analysis.contrasts import comparisons
from clearnets.analysis.frames import columns_of, ordered, pick, sort
from clearnets.analysis.samples import bootstrap, interval, layer_strata
from clearnets.config import Config

ALL = "all"
KINDS = (ALL, "lexical", "local", "contextual")
AIMS = ("share", "share_others", "share_tokens", "inside", "outside", "own")
STEERED = ("steer_auroc", "steer_auroc_shuffled", "random_auroc", "strength")
TARGET_COLUMNS = (
    *("family", "seed", "concept", "kind", "layer", "latent", "tokens", "inside", "outside"),
    *("share", "share_others", "share_tokens", "own"),
)
STEERING_COLUMNS = (
    *("family", "seed", "layer", "latent", "strength", "divergence"),
    *("steer_auroc", "random_auroc"),
)
COLUMNS = ("family", "measure", "kind", "n", "mean", "low", "high", "confidence")


def tables(targets: pd.DataFrame, steered: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables by name.

    Args:
        targets, steered: what `clearnets intervene` wrote, with family and seed.
    """
    rows = []
    for family in ordered(set(steered["family"])):
        for kind in KINDS if len(targets) else ():
            own = pick(targets, family=family, **({} if kind == ALL else {"kind": kind}))
            rows += [_mean(own, family, name, config, kind) for name in AIMS if len(own)]
        own = pick(steered, family=family)
        rows += [_mean(own, family, name, config) for name in STEERED]
    keys = ["family", "seed", "layer", "latent"]
    made = {
        "steering": columns_of(sort(steered, keys), STEERING_COLUMNS),
        "interventions": pd.DataFrame(rows, columns=pd.Index(COLUMNS)),
    }
    if len(targets):
        in_order = sort(targets, ["family", "seed", "concept"])
        made["targets"] = columns_of(in_order, TARGET_COLUMNS)
    return made


def known_groups(targets: pd.DataFrame, steered: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return rows of `instruments`: trained against untrained by what is on target, and own
    sentences against others' by what steering moves."""
    rows = []
    for name, a, b in comparisons(config.families) if len(targets) else ():
        if name == "untrained twin":
            one, other = (_by_concept(targets, family) for family in (a, b))
            both = one.to_frame("a").join(other.to_frame("b"), how="inner").dropna()
            if len(both):
                value = (both["a"] - both["b"]).to_numpy(np.float64)
                how = bootstrap(config.collate, "on target", a, b)
                estimate = stats.mean_estimate(value, np.zeros(len(value), np.int64), **how)
                names = {"scorer": "on target", "test": "trained", "a": a, "b": b}
                passes = {"passes": estimate.low > 0}
                rows.append(names | estimate.columns("difference") | passes)
    told = effects.above_others(steered, config, scorer="steering", column="steer_auroc")
    return pd.concat([pd.DataFrame(rows), told], ignore_index=True)


def _by_concept(targets: pd.DataFrame, family: str) -> pd.Series:
    found: Any = pick(targets, family=family).groupby("concept")["share"].mean()
    return found


def _mean(
    own: pd.DataFrame, family: str, measure: str, config: Config, kind: str | None = None
) -> dict[str, Any]:
    """Return a mean over concepts, each over its seeds; or over latents where `kind` is None."""
    own = own.assign(**{measure: own[measure].astype(float)}).dropna(subset=[measure])
    values: Any = own[measure] if kind is None else own.groupby("concept")[measure].mean()
    how = bootstrap(config.collate, "interventions", family, measure, kind or ALL)
    value = values.to_numpy(np.float64)
    strata = layer_strata(own) if kind is None else np.zeros(len(value), np.int64)
    estimate = interval(stats.mean_estimate(value, strata, **how), config.collate, len(value))
    names = {"family": family, "measure": measure, "kind": kind or ALL, "n": len(value)}
    return names | estimate.columns("mean") | {"confidence": config.collate.confidence}
