"""Tables of latents' counterparts in other runs (`clearnets stability`).

| table | one row per |
|---|---|
| stability | family, what differs, layer or all of them: how far live latents have counterparts |
| stability_relations | family, what differs, measure: does stability go with it? |

What differs is the coder's seed, on the same model, or the training seed of the whole pipeline. A
latent's stability is its correlation with its counterpart, the mean over the other runs. Ranks are
taken within layers. `at_equal_rate` is the rank correlation of what a linear function of the rank
of the firing rate leaves of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis import statistics as stats
from clearnets.analysis.embedding import rank_correlation
from clearnets.analysis.frames import ordered, pick
from clearnets.analysis.samples import bootstrap, interval, layer_strata
from clearnets.analysis.sources import SCORERS
from clearnets.config import Config
from clearnets.families import FAMILIES

KEYS = ["family", "seed", "layer", "latent"]
CODER, TRAINING = "coder seed", "training seed"
DIFFERS = (CODER, TRAINING)
ALL = "all"
COLUMNS = (
    *("family", "differs", "layer", "n", "live"),
    *("correlation", "correlation_low", "correlation_high"),
    *("shared", "shared_low", "shared_high"),
    *("null_correlation", "null_shared", "untrained_correlation", "untrained_shared"),
    *("decoder_cosine", "shared_from", "confidence"),
)
RELATION_COLUMNS = (
    *("family", "differs", "measure", "n", "correlation", "low", "high"),
    *("at_equal_rate", "at_equal_rate_low", "at_equal_rate_high", "confidence"),
)


def tables(
    found: pd.DataFrame, measures: Mapping[str, pd.DataFrame], config: Config
) -> dict[str, pd.DataFrame]:
    """Return the tables by name.

    Args:
        found: rows of `clearnets stability` with family and seed.
        measures: by name, a table of latents (`KEYS`) with a column of that name.
    """
    found = found.assign(differs=np.where(found["other"] == "reseeded", CODER, TRAINING))
    live: Any = found[found["tokens"] >= config.stability.min_tokens]
    return {
        "stability": _levels(found, live, config),
        "stability_relations": _relations(live, measures, config),
    }


def measures(
    judged: pd.DataFrame, effects: pd.DataFrame, concepts: pd.DataFrame | None
) -> dict[str, pd.DataFrame]:
    """Return by name what the stability of latents may go with: scores by rules, what ablating
    does, and F1 for the concept that a latent recovers best."""
    sources = [(name, judged) for name in SCORERS]
    sources += [("divergence", effects)] if len(effects) else []
    found: dict[str, Any] = {name: table[[*KEYS, name]].dropna() for name, table in sources}
    if concepts is not None and len(concepts):
        found["concept F1"] = concepts.rename(columns={"f1": "concept F1"})[[*KEYS, "concept F1"]]
    return found


def _levels(found: pd.DataFrame, live: pd.DataFrame, config: Config) -> pd.DataFrame:
    rows = []
    for family, differs in product(ordered(set(found["family"])), DIFFERS):
        own = pick(live, family=family, differs=differs)
        every = pick(found, family=family, differs=differs)
        twin = pick(live, family=FAMILIES[family].untrained_twin, differs=differs)
        for layer in (ALL, *sorted(set(own["layer"]))):
            chosen = {} if layer == ALL else {"layer": layer}
            here, drawn, untrained = (pick(table, **chosen) for table in (own, every, twin))
            if len(here):
                row: dict[str, Any] = {"family": family, "differs": differs, "layer": layer}
                names = (family, differs, str(layer))
                rows.append(row | _level(here, len(drawn), untrained, config, names))
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def _level(
    own: pd.DataFrame,
    every: int,
    twin: pd.DataFrame,
    config: Config,
    names: tuple[str, ...],
) -> dict[str, Any]:
    """Return how far the live latents of some layers are stable; `every` counts all of them."""
    least = config.stability.shared
    row: dict[str, Any] = {"n": len(own), "live": len(own) / every}
    strata = layer_strata(own)
    values = own["correlation"].to_numpy(np.float64)
    for name, of in (("correlation", values), ("shared", (values >= least).astype(np.float64))):
        how = bootstrap(config.collate, "stability", *names, name)
        estimate = interval(stats.mean_estimate(of, strata, **how), config.collate, len(own))
        row |= estimate.columns(name, f"{name}_")
    for prefix, table, column in (
        ("null", own, "null_correlation"),
        ("untrained", twin, "correlation"),
    ):
        there: Any = table[column].dropna()
        row[f"{prefix}_correlation"] = there.mean()
        row[f"{prefix}_shared"] = (there >= least).mean() if len(there) else np.nan
    row["decoder_cosine"] = own["decoder_cosine"].mean()
    return row | {"shared_from": least, "confidence": config.collate.confidence}


def _relations(
    live: pd.DataFrame, measures: Mapping[str, pd.DataFrame], config: Config
) -> pd.DataFrame:
    rows = []
    keys = [*KEYS, "differs"]
    stable: Any = live.groupby(keys, as_index=False)[["correlation", "tokens"]].mean()
    for family, differs in product(ordered(set(live["family"])), DIFFERS):
        own = pick(stable, family=family, differs=differs)
        for name, table in measures.items() if len(own) else ():
            both = own.merge(table, on=KEYS)
            names = {"family": family, "differs": differs, "measure": name, "n": len(both)}
            rows += [names | _relation(both, name, config)] if len(both) else []
    return pd.DataFrame(rows, columns=pd.Index(RELATION_COLUMNS))


def _relation(both: pd.DataFrame, measure: str, config: Config) -> dict[str, Any]:
    """Return the rank correlation of stability with a measure, and that at equal firing rate."""
    columns = both[["correlation", measure, "tokens"]]
    ranks: Any = columns.groupby([both["seed"], both["layer"]]).rank(pct=True)
    x, y, rate = (ranks[name].to_numpy(np.float64) for name in columns)
    row: dict[str, Any] = {"confidence": config.collate.confidence}
    for prefix, pair in (("", (x, y)), ("at_equal_rate_", (_rest(x, rate), _rest(y, rate)))):
        estimate = rank_correlation(*pair, config.collate.confidence)
        estimate = interval(estimate, config.collate, len(both))
        row |= estimate.columns(prefix.rstrip("_") or "correlation", prefix)
    return row


def _rest(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return what a linear function of `of` leaves of the values."""
    if len(of) < 2 or np.ptp(of) == 0:
        return values
    slope, offset = np.polyfit(of, values, 1)
    return values - slope * of - offset
