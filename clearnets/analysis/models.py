"""Tables of the models: loss curves, pairs, parameters and FLOPs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from clearnets.analysis.frames import columns_of, sort
from clearnets.analysis.sources import Sources
from clearnets.families import FAMILIES

CURVE_COLUMNS = ("model", "seed", "step", "tokens", "train_loss", "valid_loss")
COMPUTE_COLUMNS = (
    "parameters",
    "parameters_without_embeddings",
    "flops_per_token_forward",
    "flops_per_token_training",
    "training_tokens",
    "training_flops",
    "heldout_loss",
)


def model_of(family: str, models: Sequence[str]) -> str | None:
    """Return the model of the pair that a family reads; None where it reads tokens alone."""
    place = {"dense": 0, "sparse": -1}
    model = FAMILIES[family].model
    return models[place[model]] if model else None


def pair_table(sources: Sources) -> pd.DataFrame:
    """Return one row per seed: steps and validation losses of the pair, and whether they match."""
    rows = []
    for seed, pair in sources.pairs.items():
        row: dict[str, Any] = {"seed": seed}
        for model in sources.models:
            row[f"{model}_step"] = pair[model]["step"]
            row[f"{model}_valid_loss"] = pair[model]["valid_loss"]
        # A model that is alone has nothing to differ from.
        row["difference"] = pair.get("difference", math.nan)
        rows.append({**row, "matched": pair.get("matched", True)})
    return pd.DataFrame(rows)


def compute_table(sources: Sources) -> pd.DataFrame:
    """Return parameters, FLOPs per token and training tokens of the models and of every coder
    family.

    A coder family's numbers are those of all its layers together, on top of the model it reads.
    Training tokens and FLOPs are missing where a model or coders were taken over.
    """
    rows = []
    for seed, summary in sources.compute.items():
        for kind, entries in (("model", summary["models"]), ("coder", summary["coders"])):
            for name, numbers in entries.items():
                rows.append({"kind": kind, "name": name, "seed": seed, **numbers})
    columns = ["kind", "name", "seed", *COMPUTE_COLUMNS]
    table = columns_of(pd.DataFrame(rows), columns)
    for column in COMPUTE_COLUMNS:
        # Numbers, too, where every one of them is unknown.
        table[column] = pd.to_numeric(table[column])
    return sort(table, ["kind", "name", "seed"])
