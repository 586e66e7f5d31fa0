"""The summary's tables of circuits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from clearnets.analysis.circuits import NEEDED, WANTED
from clearnets.analysis.frames import pick, records
from clearnets.analysis.text import DASH, interval, number, table


def circuit_tables(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return how well models answer, how large their circuits are, and how legible."""
    return [
        _answers(frames["circuit_tasks"]),
        _sizes(frames["circuit_sizes"]),
        _legible(frames["circuit_legibility"]),
    ]


def _answers(tasks: pd.DataFrame) -> str:
    """Return accuracies and logit differences by task; families of one model have the same."""
    rows = []
    for task in dict.fromkeys(tasks["task"]):
        own: Any = pick(tasks, task=task).groupby("family", sort=False).mean(numeric_only=True)
        pairs = zip(own["accuracy"], own["difference"])
        rows.append([str(task), *(f"{number(a, '.2f')} ({number(d, '+.2f')})" for a, d in pairs)])
    families = map(str, dict.fromkeys(tasks["family"]))
    return table(["questions: accuracy (logit difference)", *families], rows)


def _sizes(sizes: pd.DataFrame) -> str:
    rows = []
    for row in records(sizes):
        cells = [_needed(row, f"{kind}_{wanted * 100:.0f}") for kind in NEEDED for wanted in WANTED]
        cells += [interval(row, name) for name in ("errors", "latents")]
        rows.append([str(row["family"]), str(row["task"]), *cells])
    head = ["circuits: family", "task", *(f"latents for {wanted:.0%}" for wanted in WANTED)]
    head += [f"for {wanted:.0%} without errors" for wanted in WANTED]
    return table([*head, "error nodes alone", "all latents without errors"], rows)


def _needed(row: dict[str, float], name: str) -> str:
    """Return how many latents are needed; an end of the interval that no circuit reaches is left
    open."""
    if pd.isna(row[name]):
        return DASH
    low, high = (number(row[f"{name}_{end}"], ".0f") for end in ("low", "high"))
    return f"{row[name]:.0f} [{low}, {high}]"


def _legible(legible: pd.DataFrame) -> str:
    rows = [
        [
            *(str(row["family"]), str(row["scorer"]), str(row["inside"]), str(row["outside"])),
            interval(row, "difference"),
        ]
        for row in records(legible)
    ]
    head = ["legibility: family", "scorer", "in circuits", "others", "in circuits − others"]
    return table(head, rows)
