"""Rows of a language model's scores of latents, from records of `judged.jsonl` (see
`clearnets.autointerp.records`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clearnets.analysis import statistics as stats

# How a latent was judged: by its own explanation, or as one of the controls.
KINDS = ("own", "shuffled", "reordered", "redrawn")
MEASURES = ("accuracy", "auroc", "precision", "recall", "correlation")
# What a scorer's noise is measured in.
MAIN_MEASURE = {"simulation": "correlation", "surprisal": "auroc"}
COUNTS = ("answered", "missing")
AGAIN = ("both", "same")
# Whose explanation it was, of the kind `shuffled`.
GIVER = "giver"
ROW = ("latent", "status", "demonstration", "scorer", "kind", GIVER, *MEASURES, *COUNTS, *AGAIN)


def rows(records: Iterable[Mapping[str, Any]], scorers: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield a row of `ROW` per latent, scorer and kind of judgement; latents that could not be
    judged have one of the kind `own` without numbers."""
    for record in records:
        for scorer in scorers:
            names = {key: record[key] for key in ("latent", "status", "demonstration")}
            for kind in KINDS:
                found = record.get(scorer if kind == "own" else f"{scorer}_{kind}")
                for counts in found if isinstance(found, list) else [found]:
                    if counts is not None or kind == "own":
                        said = counts or {}
                        yield {
                            **names, "scorer": scorer, "kind": kind,
                            GIVER: said.get("explanation_of"), **measured(scorer, counts),
                            **{key: said.get(key) for key in AGAIN},
                        }  # fmt: skip


def measured(scorer: str, counts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the measures of one judgement, and how many answers were given and are missing.

    `accuracy` is balanced, but for `intruder`; missing answers have no part in it. Precision is
    null where nothing was said to be active, and all are where a class has no answers.
    """
    row: dict[str, Any] = dict.fromkeys((*MEASURES, *COUNTS))
    if not counts or set(counts) <= {"explanation_of", *AGAIN}:
        return row
    match scorer:
        case "intruder":
            answered = counts["right"] + counts["wrong"]
            row["accuracy"] = counts["right"] / answered if answered else None
            return row | {"answered": answered, "missing": counts["missing"]}
        case "simulation" | "surprisal":
            return row | {key: counts[key] for key in row if key in counts}
    cells = {cell: counts[cell] for cell in ("tp", "fp", "tn", "fn")}
    row["answered"] = sum(cells.values())
    row["missing"] = counts["missing_positives"] + counts["missing_negatives"]
    row["auroc"] = counts["auroc"]
    if counts["tp"] + counts["fn"] and counts["tn"] + counts["fp"]:
        row["accuracy"] = float(stats.balanced_accuracy(**cells))
        row["recall"] = counts["tp"] / (counts["tp"] + counts["fn"])
        said = counts["tp"] + counts["fp"]
        row["precision"] = counts["tp"] / said if said else None
    return row
