"""Tables of measures on a dictionary that is known (`clearnets planted`).

| table | one row per |
|---|---|
| planted | dictionary, measure: the mean over worlds, the least and the largest value |
| planted_orders | measure, pair of dictionaries of which one is known to be better |

A measure orders a pair where the better dictionary has the larger value in every world.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from clearnets.analysis.frames import pick
from clearnets.latents.planted_truth import DICTIONARIES, RANDOM, TRUE

UNTRAINED = "untrained"
COLUMNS = ("dictionary", "trained", "measure", "worlds", "mean", "least", "largest")
ORDER_COLUMNS = ("measure", "better", "worse", "worlds", "difference", "least", "largest", "passes")


def tables(found: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the tables by name; `found` is what `clearnets planted` wrote."""
    rows, orders = [], []
    for measure in dict.fromkeys(found["measure"]):
        own = pick(found, measure=measure)
        by_world: Any = own.pivot(index="seed", columns="dictionary", values="value")
        trained = dict(zip(own["dictionary"], own["trained"]))
        for name in trained:
            named = {"dictionary": name, "trained": trained[name], "measure": measure}
            rows.append(named | _spread(by_world[name], "mean"))
        for better, worse in _pairs(trained):
            difference = by_world[better] - by_world[worse]
            named = {"measure": measure, "better": better, "worse": worse}
            passes = bool((difference > 0).all())
            orders.append(named | _spread(difference, "difference") | {"passes": passes})
    return {
        "planted": pd.DataFrame(rows, columns=pd.Index(COLUMNS)),
        "planted_orders": pd.DataFrame(orders, columns=pd.Index(ORDER_COLUMNS)),
    }


def _pairs(trained: dict[str, bool]) -> list[tuple[str, str]]:
    """Return pairs of dictionaries, the better one first."""
    worse = [name for name in DICTIONARIES if name != TRUE]
    pairs = [(TRUE, name) for name in worse]
    pairs += [(name, RANDOM) for name in worse if name != RANDOM]
    return pairs + [(name, UNTRAINED) for name in trained if trained[name] and name != UNTRAINED]


def _spread(values: pd.Series, name: str) -> dict[str, Any]:
    span = {"least": values.min(), "largest": values.max()}
    return {"worlds": len(values), name: values.mean(), **span}
