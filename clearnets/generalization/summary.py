"""Leads and rankings of generalization metrics as Markdown, from their tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from clearnets.analysis.frames import pick, records
from clearnets.analysis.text import DASH, number, percent, table

DECIDED = ("before", "with", "after")
Row = dict[str, Any]


def markdown(frames: Mapping[str, pd.DataFrame]) -> str:
    """Return the tables of the ranking and of leads with explanations; empty without rows.

    Args:
        frames: tables by name.
    """
    if "generalization_ranking" not in frames:
        return ""
    ranking, leads = frames["generalization_ranking"], frames["generalization_leads"]
    parts = [_ranking(pick(ranking, task=task)) for task in ranking["task"].unique()]
    if len(leads):
        parts.append(_leads(leads))
    if len(ranking):
        parts.append(_explain_ranking(ranking))
    if len(leads):
        parts.append(_explain_leads(leads))
    return "".join(f"\n{part}\n" for part in parts)


def _ranking(of_task: pd.DataFrame) -> str:
    task = of_task["task"].iloc[0]
    head = [
        f"{task}: metric",
        "τ with the gap",
        "p",
        "conditional information",
        "p",
        "above its null",
    ]
    rows = [
        [
            _name(row),
            _signed(row, "tau", ".2f"),
            _p(row["tau_adjusted"]),
            DASH if math.isnan(row["score"]) else f"{row['score']:.1f} %",
            _p(row["score_adjusted"]),
            row["holds"],
        ]
        for row in records(of_task)
    ]
    return table(head, rows)


def _leads(leads: pd.DataFrame) -> str:
    """Return a table of metrics by groups of runs; undecided metrics are named below it."""
    keys = ["task", "variant", "setting"]
    groups = list(leads[keys].drop_duplicates().itertuples(index=False))
    cells = {
        (row["metric"], row["kind"], *(row[key] for key in keys)): row for row in records(leads)
    }
    names = {_name(row): (row["metric"], row["kind"]) for row in records(leads)}
    head = ["lead over the test loss"]
    for group in groups:
        first = next(row for row in cells.values() if _group(row) == tuple(group))
        change = f"{first['leg']} near step {number(first['loss_change'], ',.0f')}"
        head.append(f"{', '.join(filter(None, group))} ({change}, in {first['unit']})")
    rows, others = [], []
    for name, key in names.items():
        found = [cells.get((*key, *group)) for group in groups]
        if any(row is not None and row["verdict"] in DECIDED for row in found):
            rows.append([name, *(DASH if row is None else _cell(row) for row in found)])
        else:
            others.append(name)
    left = f"\n\nUndecided, or without a change, in all of these: {', '.join(others)}."
    return table(head, rows) + left * bool(others)


def _group(row: Row) -> tuple[str, ...]:
    return row["task"], row["variant"], row["setting"]


def _cell(row: Row) -> str:
    together = "; together" if row["together_adjusted"] <= 0.05 else ""
    if row["verdict"] == "no change":
        return str(row["verdict"])
    form = ".2f" if row["unit"] == "decades" else ",.0f"
    return f"{_signed(row, 'lead', form)} {row['verdict']}{together}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else number(value, ".3f")


def _name(row: Row) -> str:
    metric = row["metric"].replace("_", " ")
    return f"*{metric}*" if row["kind"] == "reference" else metric


def _signed(row: Row, key: str, form: str) -> str:
    """Return `+0.41 [+0.30, +0.52]`, or the value alone."""
    values = [row[key], row[f"{key}_low"], row[f"{key}_high"]]
    texts = [number(value, f"+{form}") for value in values]
    return texts[0] if texts[1] == DASH else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _explain_ranking(ranking: pd.DataFrame) -> str:
    texts = []
    for task in ranking["task"].unique():
        of_task = pick(ranking, task=task)
        measures = records(pick(of_task, kind="measure"))
        ranked = sum(row["holds"] != "not ranked" for row in measures)
        order, beyond = (
            sum(row["holds"] in (name, "both") for row in measures) for name in ("tau", "score")
        )
        first: Any = of_task.iloc[0]
        missing = int(first["not_reached"])
        texts.append(
            f"{task}: {int(first['runs'])} combinations of settings"
            + f" ({missing} more did not reach the training loss)" * bool(missing)
            + f"; of {ranked} metrics {order} order the gaps better than chance, and {beyond} do "
            "so beyond what any two settings say."
        )
    first: Any = ranking.iloc[0]
    return (
        f"{' '.join(texts)} τ: Kendall's, with {percent(first['confidence'])} bootstrap intervals "
        "over runs. Conditional information: the competition's score (Jiang et al.), what a metric "
        "tells of the order of two runs' gaps beyond any two settings, in per cent of what is "
        f"unknown. p: by {int(first['permutations']):,} permutations of whole runs, of the largest "
        "over all metrics: the null of no relation to the gaps at all, which the score of a metric "
        "that follows a setting with noise can pass, too. In italics what is known without a "
        "metric: the settings and the training loss. All of it speaks for runs of these settings "
        "only."
    )


def _explain_leads(leads: pd.DataFrame) -> str:
    seeds = sorted({int(count) for count in leads["seeds"]})
    count = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    return (
        "Leads: by how much a metric's change of level comes before the test loss's, paired by "
        f"seed ({count} training seeds), with {percent(leads['confidence'].iloc[0])} bootstrap "
        "intervals over seeds; decades are powers of ten of steps. The loss is asked where it "
        "falls or where it rises, the larger movement that goes from one level to another; metrics "
        "are, as long before its change as after it. Before, after: a lead of nothing is rejected "
        "(5 %, Holm over all metrics). With: the interval lies within one checkpoint. No change: "
        "the metric or the loss does not go from one level to another there. "
        "Together: the metric moves at the checkpoints at which the loss moves, more "
        "than when the loss is shifted in time (5 %, corrected for the number of metrics). In "
        "italics the other curves."
    )
