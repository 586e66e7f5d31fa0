"""The summary's table of measures on a dictionary that is known."""

from __future__ import annotations

import pandas as pd

from clearnets.analysis.frames import pick, records
from clearnets.analysis.text import number, table


def planted_table(means: pd.DataFrame, orders: pd.DataFrame) -> str:
    """Return per dictionary the mean of each measure, and per measure what it cannot order."""
    measures = list(dict.fromkeys(means["measure"]))
    lines = []
    for name in dict.fromkeys(means["dictionary"]):
        own = {row["measure"]: row for row in records(pick(means, dictionary=name))}
        trained = own[measures[0]]["trained"]
        label = f"coder: {name}" if trained else str(name)
        lines.append([label, *(number(own[measure]["mean"], ".2f") for measure in measures)])
    failed = []
    for measure in measures:
        own = records(pick(orders, measure=measure, passes=False))
        failed.append("; ".join(f"{row['better']} > {row['worse']}" for row in own) or "none")
    lines.append(["not ordered in every world", *failed])
    return table(["known dictionary", *measures], lines)
