"""Tables by layer: what ablating it costs, and how well coders replace it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clearnets.analysis.frames import columns_of, pick, sort, stacked
from clearnets.analysis.sources import Sources
from clearnets.config import Collate
from clearnets.families import FAMILIES

CODER_COLUMNS = (
    "fvu",
    "l0",
    "dead",
    "nats_splice",
    "loss_recovered",
    "fvu_token_mean",
    "fvu_pca",
    "fvu_linear",
)
# Losses that are told above the clean model's.
ENDS = ("splice", "ablate")


def layer_table(sources: Sources, settings: Collate) -> pd.DataFrame:
    """Return ablation cost per model and layer; fvu, l0, dead share, loss with a coder in place
    per family and layer.

    `nats_splice`: that loss above the clean model's; between 0, which native latents have by
    definition and no row for, and the `cost` of mean-ablating the layer.

    `matters` says whether mean-ablating the layer costs at least `threshold` nats in the model
    that the row is about or reads; loss recovered is left out where it does not.
    """
    keys = ["name", "seed", "layer"]
    models = columns_of(sources.ablation.rename(columns={"model": "name"}), [*keys, "cost"])
    models["matters"] = models["cost"] >= settings.min_ablation_cost
    spliced = sources.coders["loss_splice"] - sources.coders["loss_clean"]
    families = stacked(sources.coders.assign(nats_splice=spliced), sources.native)
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
    model; `nats_...` are those above the clean model's.

    Loss recovered is left out where ablating all layers costs less than the threshold.
    """
    columns = ["family", "seed", "loss_clean", "loss_splice", "loss_ablate", "loss_recovered"]
    table = columns_of(sources.splice_all, columns)
    nats = {f"nats_{name}": table[f"loss_{name}"] - table["loss_clean"] for name in ENDS}
    enough = nats["nats_ablate"] >= settings.min_ablation_cost
    kept = table["loss_recovered"].where(enough)
    table = table.assign(loss_recovered=kept, **nats)
    order = [*columns[:-1], *nats, columns[-1]]
    return sort(columns_of(table, order), ["family", "seed"])


def depth_table(sources: Sources, layers: pd.DataFrame) -> pd.DataFrame:
    """Return per model and seed how much of its depth it uses, in nats.

    `sum_single`: mean-ablating each feedforward but the first alone, summed; `joint`: all of these
    at once; `joint_all`: the first one, too. `layers_that_matter`: of `layers`.
    """
    models: Any = pick(layers, kind="model").rename(columns={"name": "model"})
    keys = ["model", "seed"]
    later: Any = models.assign(cost=models["cost"].where(models["layer"] > 0))
    sums = later.groupby(keys, as_index=False).agg(
        sum_single=("cost", "sum"),
        layers_that_matter=("matters", "sum"),
        layers=("matters", "size"),
    )
    order = [*keys, "sum_single", "joint", "joint_all", "layers_that_matter", "layers"]
    return sort(columns_of(sums.merge(sources.depth, on=keys), order), keys)
