"""Tables of linear probes for known concepts (`clearnets probes`).

| table | one row per |
|---|---|
| probes | seed, family, concept, probe: F1 and AUROC on `concept_test` |
| probe_summary | family, kind of concept, probe: means over concepts, with those to compare with |

A probe on k latents stands between a floor (the same of the family's null and of its untrained
twin) and a ceiling (a probe on all dimensions of the activations that the family reads); sets of
tokens and of n-grams are what can be known without a model. Intervals are over concepts.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis import statistics as stats
from clearnets.analysis.concepts import ORDER
from clearnets.analysis.frames import columns_of, pick
from clearnets.analysis.samples import bootstrap
from clearnets.config import Config
from clearnets.families import FAMILIES

KINDS = ("lexical", "local", "contextual")
DENSE = "dense"
COLUMNS = (
    *("seed", "family", "concept", "kind", "positives_test", "token_set_f1", "ngram_f1"),
    *("probe", "layer", "f1_fit", "f1", "auroc"),
)
SUMMARY_COLUMNS = (
    *("family", "kind", "probe", "concepts", "f1", "f1_low", "f1_high"),
    *("auroc", "auroc_low", "auroc_high"),
    *(f"{other}_{name}" for other in ("dense", "untrained", "null") for name in ("f1", "auroc")),
    *("trivial_f1", "above_trivial", "confidence"),
)


def tables(found: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables by name; `found` are rows of `clearnets probes` with family and seed."""
    found = found.assign(probe=found["probe"].astype(str))
    families = [name for name in ORDER if name in set(found["family"])]
    rank = [families.index(name) for name in found["family"]]
    order = found.assign(rank=rank).sort_values(["rank", "seed"], kind="stable")
    rows = []
    for family, kind in product(families, KINDS):
        own = pick(found, family=family, kind=kind)
        for probe in dict.fromkeys(own["probe"]):
            names = {"family": family, "kind": kind, "probe": probe}
            rows.append(names | _summary(found, names, config))
    return {
        "probes": columns_of(order, COLUMNS).reset_index(drop=True),
        "probe_summary": pd.DataFrame(rows, columns=pd.Index(SUMMARY_COLUMNS)),
    }


def _summary(found: pd.DataFrame, names: dict[str, str], config: Config) -> dict[str, Any]:
    spec = FAMILIES.get(names["family"])
    own: Any = pick(found, **names).groupby("concept", sort=False).mean(numeric_only=True)
    row: dict[str, Any] = {"concepts": len(own), "confidence": config.collate.confidence}
    for measure in ("f1", "auroc"):
        values = own[measure].dropna().to_numpy(np.float64)
        how = bootstrap(config.collate, "probes", *names.values(), measure)
        estimate = stats.mean_estimate(values, np.zeros(len(values), np.int64), **how)
        row |= estimate.columns(measure, f"{measure}_")
        for name, other in (
            ("dense", names | {"probe": DENSE}),
            ("untrained", names | {"family": spec.untrained_twin if spec else None}),
            ("null", names | {"family": spec.null if spec else None}),
        ):
            row[f"{name}_{measure}"] = pick(found, **other)[measure].mean()
    trivial = np.maximum(own["token_set_f1"], own["ngram_f1"])
    return row | {
        "trivial_f1": trivial.mean(),
        "above_trivial": int((own["f1"] > trivial).sum()),
    }
