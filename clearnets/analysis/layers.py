"""Tables by layer: what ablating it costs, and how well coders replace it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clearnets.analysis.frames import columns_of, sort, stacked
from clearnets.analysis.sources import Sources
from clearnets.config import Collate
from clearnets.families import FAMILIES

CODER_COLUMNS = (
    "fvu",
    "l0",
    "dead",
    "loss_recovered",
    "fvu_token_mean",
    "fvu_pca",
    "fvu_linear",
)


def layer_table(sources: Sources, settings: Collate) -> pd.DataFrame:
    """Return ablation cost per model and layer; fvu, l0, dead share, loss recovered per family and
    layer.

    `matters` says whether mean-ablating the layer costs at least `threshold` nats in the model
    that the row is about or reads; loss recovered is left out where it does not.
    """
    keys = ["name", "seed", "layer"]
    models = columns_of(sources.ablation.rename(columns={"model": "name"}), [*keys, "cost"])
    models["matters"] = models["cost"] >= settings.min_ablation_cost
    families = stacked(sources.coders, sources.native)
    families = columns_of(families.rename(columns={"family": "name"}), [*keys, *CODER_COLUMNS])
    matters = _by_layer(models, "matters")
    families["matters"] = [
        matters[FAMILIES[name].model, seed, layer]
        for name, seed, layer in families[keys].to_numpy()
    ]
    families["loss_recovered"] = families["loss_recovered"].where(families["matters"])
    table = stacked(models.assign(kind="model"), families.assign(kind="family"))
    table = table.assign(threshold=settings.min_ablation_cost)
    order = ["kind", *keys, "cost", "matters", "threshold", *CODER_COLUMNS]
    return sort(columns_of(table, order), ["kind", *keys])


def _by_layer(models: pd.DataFrame, column: str) -> dict[tuple[Any, ...], Any]:
    keys = zip(models["name"], models["seed"], models["layer"])
    return dict(zip(keys, models[column]))


def splice_table(sources: Sources, settings: Collate) -> pd.DataFrame:
    """Return losses with all layers' coders spliced in at once, of the clean and of the ablated
    model.

    Loss recovered is left out where ablating all layers costs less than the threshold.
    """
    columns = ["family", "seed", "loss_clean", "loss_splice", "loss_ablate", "loss_recovered"]
    table = columns_of(sources.splice_all, columns)
    cost = table["loss_ablate"] - table["loss_clean"]
    kept = table["loss_recovered"].where(cost >= settings.min_ablation_cost)
    return sort(table.assign(loss_recovered=kept), ["family", "seed"])
