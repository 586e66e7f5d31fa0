"""Human ratings as the feature browser saves them: JSON lines, one file per rater in
`paper/ratings/<experiment>/`, named after the rater."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from clearnets import UserError
from clearnets.analysis.frames import sort
from clearnets.autointerp.records import EXPLANATIONS
from clearnets.config import Config
from clearnets.families import NO_LAYER
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl

KEYS = ["family", "seed", "layer", "latent"]
QUESTIONS = ("interpretable", "fits")
# What an answer is worth where answers are put in order.
ANSWERS = {"no": 0.0, "unsure": 0.5, "yes": 1.0}
# By family, seed and layer the folder of explanations.
Places = Mapping[tuple[str, int, int], Path]
FIELDS = {"experiment", "question", "answer", "explanation", *KEYS}


def files(config: Config) -> list[Path]:
    """Return the files of ratings of an experiment."""
    return sorted(paths.ratings(config.experiment).glob("*.jsonl"))


def read(config: Config, places: Places) -> pd.DataFrame | None:
    """Return rows of rater, KEYS, question, answer and `current`: whether the latent's explanation
    is still the one that was rated. Of several answers to one question the last counts. None
    without answers.

    Raises:
        UserError: a line is no rating of this experiment; it names file and line.
    """
    answers: dict[tuple[Any, ...], dict[str, Any]] = {}
    explained: dict[Path, dict[int, str]] = {}
    for path in files(config):
        for number, record in enumerate(read_jsonl(path), 1):
            row = _checked(record, config, places, f"{path}, line {number}")
            folder = places[row["family"], row["seed"], row["layer"]]
            if folder not in explained:
                found = read_jsonl(folder / EXPLANATIONS)
                explained[folder] = {r["latent"]: r["explanation"] for r in found}
            row["current"] = explained[folder].get(row["latent"]) == record["explanation"]
            key = (path.stem, *(row[name] for name in (*KEYS, "question")))
            answers[key] = {"rater": path.stem, **row}
    if not answers:
        return None
    return sort(pd.DataFrame(list(answers.values())), ["rater", *KEYS, "question"])


def _checked(record: Any, config: Config, places: Places, where: str) -> dict[str, Any]:
    if not isinstance(record, dict) or not set(record) >= FIELDS:
        raise UserError(f"{where}: no rating; save it anew from the page of `clearnets browse`")
    if record["experiment"] != config.experiment:
        place = paths.ratings(str(record["experiment"]))
        raise UserError(f"{where}: a rating of {record['experiment']!r}; move the file to {place}")
    if record["question"] not in QUESTIONS or record["answer"] not in ANSWERS:
        raise UserError(
            f"{where}: questions are {', '.join(QUESTIONS)}, answers {', '.join(ANSWERS)}; "
            "correct the line"
        )
    layer = NO_LAYER if record["layer"] is None else record["layer"]
    if (record["family"], record["seed"], layer) not in places:
        raise UserError(f"{where}: the experiment has no such family, seed and layer; remove it")
    return {key: record[key] for key in (*KEYS, "question", "answer")} | {"layer": layer}
