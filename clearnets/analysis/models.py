"""Tables of the models: loss curves, pairs, parameters and FLOPs."""

from __future__ import annotations

import pandas as pd

from clearnets.analysis.frames import columns_of, sort
from clearnets.analysis.sources import Sources

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


def pair_table(sources: Sources) -> pd.DataFrame:
    """Return one row per seed and model: the step and validation loss at which it was matched, the
    difference of that loss from the dense model's, and whether it lies within the tolerance."""
    columns = ["seed", "model", "step", "valid_loss", "difference", "matched"]
    rows = [
        {"seed": seed, "model": model, **pair[model]}
        for seed, pair in sources.pairs.items()
        for model in sources.models
    ]
    return columns_of(pd.DataFrame(rows), columns)


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
