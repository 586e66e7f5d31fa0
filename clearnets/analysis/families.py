"""The table of families, and one row per family: how much could be explained, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis.frames import ordered, pick
from clearnets.analysis.layers import CODER_COLUMNS
from clearnets.analysis.samples import ACCURACY
from clearnets.analysis.sources import SCORERS, Sources
from clearnets.autointerp.records import STATUSES
from clearnets.config import Config
from clearnets.families import DIRECTIONS, FAMILIES

# Suffix of the summary's columns, and the rows of `means` that they are from.
MEANS = {
    "": {"explanation": "own", "latents": "explained", "layers": "all"},
    "_all": {"explanation": "own", "latents": "all", "layers": "all"},
    "_live": {"explanation": "own", "latents": "live", "layers": "all"},
    "_matter": {"explanation": "own", "latents": "explained", "layers": "matter"},
    "_shuffled": {"explanation": "shuffled", "latents": "explained", "layers": "all"},
}


def family_table() -> pd.DataFrame:
    """Return all rows of `clearnets.families`, random directions among them.

    Figures take names, colours and markers from it, and which controls belong to a family.
    """
    table = pd.DataFrame([asdict(row) for row in (FAMILIES | DIRECTIONS).values()])
    return table.rename(columns={"name": "family"})


def summary_table(
    sources: Sources, config: Config, made: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """Return one row per family: what it is, how much could be explained, and how well.

    Numbers are means over layers and seeds. Parameters and FLOPs are those of the model and all
    its coders together. Coverage columns are shares of the latents drawn.
    `detection` and `fuzzing` are the rule scores of explained latents, `_all` the coverage-adjusted
    ones, `_live` those without dead latents, `_matter` those of layers that matter.
    """
    means = pick(made["means"], seed="all", measure=ACCURACY)
    rows = []
    for family in ordered(config.families):
        status = pick(made["latents"], family=family)["status"]
        model = pick(made["compute"], kind="model", name=FAMILIES[family].model)
        coder = pick(made["compute"], kind="coder", name=family)
        rows.append(
            _identity(family, sources, config)
            | _training(family, model, coder)
            | _faithfulness(family, FAMILIES[family].model, made)
            | {"drawn": len(status), **_size(model, coder)}
            | {name: (status == name).mean() for name in STATUSES}
            | _scores(pick(means, family=family))
            | _matched(pick(made["pair"], model=FAMILIES[family].model))
        )
    return pd.DataFrame(rows)


def _matched(pair: pd.DataFrame) -> dict[str, Any]:
    """Return the greatest difference of the model's loss from the dense one's over seeds."""
    difference = max(pair["difference"], key=abs, default=np.nan)
    return {"pair_difference": difference, "pair_matched": bool(pair["matched"].all())}


def _identity(family: str, sources: Sources, config: Config) -> dict[str, Any]:
    """Return what a family reads and reconstructs, its width and its realised l0."""
    spec = FAMILIES[family]
    reconstructs = spec.reconstructs
    existing = {str(name): source for name, source in config.coders.existing.items()}
    if source := existing.get(family):
        # A hub id, or the last parts of a path that begins elsewhere.
        parts = [part for part in Path(source.name).parts if part != ".."]
        reconstructs += f", by the coders of {'/'.join(parts[-2:])}"
    return {
        "family": family,
        "model": FAMILIES[family].model,
        "reads": spec.reads,
        "reconstructs": reconstructs,
        "latents_per_layer": sources.latents_per_layer[family],
        "l0": np.mean([sources.l0[family, seed] for seed in config.seeds]),
    }


def _training(family: str, model: pd.DataFrame, coder: pd.DataFrame) -> dict[str, Any]:
    """Return how long a family's model and coders were trained, and the model's loss."""
    trained = not FAMILIES[family].untrained_model
    return {
        "model_tokens": model["training_tokens"].mean() if trained else 0,
        "coder_tokens": coder["training_tokens"].mean(),
        "heldout_loss": model["heldout_loss"].mean() if trained else np.nan,
    }


def _size(model: pd.DataFrame, coder: pd.DataFrame) -> dict[str, Any]:
    """Return parameters and FLOPs of model and coders together; nan where there is no model."""
    parts = [part for part in (model, coder) if len(part)]
    columns = ("parameters", "flops_per_token_forward")
    return {
        column: sum(part[column].mean() for part in parts) if parts else np.nan
        for column in columns
    }


def _faithfulness(
    family: str, model: str | None, made: Mapping[str, pd.DataFrame]
) -> dict[str, Any]:
    """Return fvu with its baselines and losses in nats above the clean model, as means over layers
    and seeds, between 0 and what ablation costs; and the largest dead share of a layer."""
    coder = pick(made["layers"], kind="family", name=family)
    splice = pick(made["splice_all"], family=family)
    return {
        "dead_max": coder["dead"].max(),
        **{column: coder[column].mean() for column in CODER_COLUMNS if "fvu" in column},
        "nats_splice": coder["nats_splice"].mean(),
        "nats_ablate": pick(made["layers"], kind="model", name=model)["cost"].mean(),
        "nats_splice_all_layers": splice["nats_splice"].mean(),
        "nats_ablate_all_layers": pick(made["depth"], model=model)["joint_all"].mean(),
        "loss_recovered": coder["loss_recovered"].mean(),
        "loss_recovered_all_layers": splice["loss_recovered"].mean(),
    }


def _scores(means: pd.DataFrame) -> dict[str, Any]:
    """Return a family's mean scores with their intervals, by scorer and kind of mean."""
    row: dict[str, Any] = {}
    for scorer in SCORERS:
        name = scorer.removeprefix("rule-")
        for suffix, kind in MEANS.items():
            one = pick(means, scorer=scorer, **kind).iloc[0]
            row[f"{name}{suffix}"] = one["mean"]
            row |= {f"{name}{suffix}_{column}": one[column] for column in ("low", "high", "n")}
        row[f"{name}_shuffled_at_chance"] = one["at_chance"]
    return row
