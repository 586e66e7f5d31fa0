"""Can each score tell what is known to be clearer? A known-groups test of every instrument.

| test | a should score above b |
|---|---|
| trained | a trained family, its untrained twin (live latents) |
| own | a trained family's own explanations, those of other latents of the layer |
| planted | latents that are a known rule, noisy ones and mixtures of two rules |

A pair passes where the interval of the difference lies above zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
import pandas as pd

from clearnets.analysis.contrasts import comparisons
from clearnets.analysis.frames import columns_of, pick
from clearnets.config import Config
from clearnets.families import FAMILIES

CONCEPTS = "concept F1"
COLUMNS = ("scorer", "test", "a", "b", "difference", "low", "high", "passes")
# By test: the kind of contrast, and the latents that are compared.
_TESTS = {
    "trained": ("untrained twin", "live"),
    "own": ("own shuffled", "explained"),
    "planted": ("planted", "explained"),
}


def instrument_table(
    contrasts: Iterable[pd.DataFrame],
    concepts: pd.DataFrame | None,
    config: Config,
    more: Iterable[pd.DataFrame] = (),
) -> pd.DataFrame:
    """Return a row per score, test and pair of families.

    Args:
        contrasts: tables of `contrast_tables`, of different scorers.
        concepts: the table `concept_summary`, where there is one.
        more: tables of rows of scores without contrasts.

    `low`, `high`: interval of the difference over latents. Concept F1 has an interval over draws of
    candidates for each family, and none of the difference: a pair passes where they lie apart.
    """
    tables = [_of_contrasts(table) for table in contrasts]
    if concepts is not None:
        tables.append(_of_concepts(concepts, config))
    tables += more
    table = pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)
    return columns_of(table, COLUMNS)


def _of_contrasts(contrasts: pd.DataFrame) -> pd.DataFrame:
    rows = pick(contrasts, layers="all", matching="none", seed="all")
    if "measure" in rows:
        rows = pick(rows, measure="balanced_accuracy")
    found = [
        pick(rows, kind=kind, latents=latents).assign(test=test)
        for test, (kind, latents) in _TESTS.items()
    ]
    table = pd.concat(found, ignore_index=True)
    known = [test != "own" or _is_known(a) for test, a in zip(table["test"], table["a"])]
    there = np.isfinite(table["difference"].to_numpy(np.float64))
    return table.loc[known & there].assign(passes=lambda rows: rows["low"] > 0)


def _is_known(family: str) -> bool:
    """Return whether a family's explanations should say something of its own latents."""
    return FAMILIES[family].is_subject or FAMILIES[family].planted == "rule"


def _of_concepts(summary: pd.DataFrame, config: Config) -> pd.DataFrame:
    rows = pick(summary, seed="all", kind="all").set_index("family")
    pairs = [
        (test, a, b)
        for test, (name, a, b) in product(_TESTS, comparisons(config.families))
        if name == _TESTS[test][0] and {a, b} <= set(rows.index)
    ]
    return pd.DataFrame(
        [
            {
                "scorer": CONCEPTS,
                "test": test,
                "a": a,
                "b": b,
                "difference": rows["f1"][a] - rows["f1"][b],
                "low": None,
                "high": None,
                "passes": rows["f1_low"][a] > rows["f1_high"][b],
            }
            for test, a, b in pairs
        ],
        columns=pd.Index(COLUMNS),
    )
