"""The summary's tables of what latents do, and of which scores tell what is known."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clearnets.analysis.effects import SENTENCES
from clearnets.analysis.frames import pick, records
from clearnets.analysis.text import DASH, interval, number, table

NATS = ("divergence", "divergence_random")


def effect_table(means: pd.DataFrame, weighted: pd.DataFrame) -> str:
    """Return per family how much its latents do, and how well sentences name it."""
    rows = []
    for family in means["family"].unique():
        own = {row["measure"]: row for row in records(pick(means, family=family))}
        cells = [number(own[name]["mean"], ".3f") for name in NATS]
        cells.append(interval(own["effect_auroc"], "mean"))
        others = ("effect_auroc_shuffled", *(f"{name}_auroc" for name in SENTENCES[1:]))
        cells += [number(own[name]["mean"], ".2f") for name in others]
        detection = records(pick(weighted, family=family, scorer="rule-detection"))
        cells.append(interval(detection[0], "weighted") if detection else DASH)
        rows.append([str(family), str(own["effect_auroc"]["n"]), *cells])
    head = ["effects: family", "latents", "nats per active token", "random direction"]
    head += ["sentence names what moves (AUROC)", "others' sentences", "logit lens"]
    head += ["lens of a random direction", "rule-detection, weighed by effect"]
    return table(head, rows)


def instrument_table(instruments: pd.DataFrame) -> str:
    """Return per score how many pairs of known order it tells, and the smallest difference."""
    tests = list(dict.fromkeys(instruments["test"]))
    rows = []
    for scorer in dict.fromkeys(instruments["scorer"]):
        cells = []
        for test in tests:
            own: Any = pick(instruments, scorer=scorer, test=test)
            if own.empty:
                cells.append(DASH)
                continue
            least = number(own["difference"].min(), "+.3f")
            cells.append(f"{int(own['passes'].sum())} of {len(own)} (least {least})")
        rows.append([str(scorer), *cells])
    names = {
        "trained": "trained above untrained",
        "own": "own above others' explanations",
        "planted": "planted rules above noise and mixtures",
    }
    return table(["score", *(names[test] for test in tests)], rows)
