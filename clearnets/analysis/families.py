"""One row per family: what it is, how much of it could be explained, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets.analysis.frames import ordered, pick
from clearnets.analysis.layers import CODER_COLUMNS
from clearnets.analysis.models import model_of
from clearnets.analysis.samples import ACCURACY
from clearnets.analysis.sources import SCORERS, Sources
from clearnets.autointerp.records import STATUSES
from clearnets.config import STEP0_CODERS, Config, Family

# Per family: what it reads of its model, what it reconstructs.
ROLES: dict[str, tuple[str, str]] = {
    "native": ("feedforward input", "nothing: it is the feedforward"),
    "transcoder": ("feedforward input", "feedforward output"),
    "skip-transcoder": ("feedforward input", "feedforward output, with a linear skip"),
    "sae": ("feedforward output", "feedforward output"),
    "neurons": ("feedforward input", "nothing: the feedforward's own units"),
    "random-native": ("feedforward input", "nothing: an untrained feedforward"),
    "random-transcoder": ("feedforward input", "feedforward output, untrained"),
    "random-sae": ("feedforward output", "feedforward output, untrained"),
    "step0-transcoder": ("feedforward input", "feedforward output, of the untrained model"),
    "step0-sae": ("feedforward output", "feedforward output, of the untrained model"),
    "token-unigram": ("current token", "nothing"),
}


def tables(
    sources: Sources, config: Config, made: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """`summary`."""
    return {"summary": summary_table(sources, config, made)}


def summary_table(
    sources: Sources, config: Config, made: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """One row per family: what it is, how much of it could be explained, and how well.

    Numbers are means over layers and seeds. Parameters and FLOPs are those of the model and all
    its coders together. Coverage columns are shares of the latents drawn.
    `detection` and `fuzzing` are the rule scores of explained latents, `_all` the coverage-adjusted
    ones, `_matter` those of layers that matter.
    """
    latents, layers, compute, pair = (made[n] for n in ("latents", "layers", "compute", "pair"))
    means, splice = made["means"], made["splice_all"]
    rows = []
    for family in ordered(config.families):
        model = model_of(family, sources.models)
        reads, reconstructs = ROLES[family]
        if source := config.coders.existing.get(cast(Family, family)):
            reconstructs += f", by the coders of {_short(source.name)}"
        own = pick(latents, family=family)
        coder = pick(layers, kind="family", name=family)
        trained = family not in ("random-native", *STEP0_CODERS)
        costs = [pick(compute, kind="model", name=model), pick(compute, kind="coder", name=family)]
        row: dict[str, Any] = {
            "family": family,
            "model": model,
            "reads": reads,
            "reconstructs": reconstructs,
            "latents_per_layer": sources.latents_per_layer[family],
            "l0": np.mean([sources.l0[family, seed] for seed in config.seeds]),
            "model_tokens": costs[0]["training_tokens"].mean() if trained else 0,
            "coder_tokens": costs[1]["training_tokens"].mean(),
            "heldout_loss": costs[0]["heldout_loss"].mean() if trained else np.nan,
            **{column: coder[column].mean() for column in CODER_COLUMNS if "fvu" in column},
            "loss_recovered": coder["loss_recovered"].mean(),
            "loss_recovered_all_layers": pick(splice, family=family)["loss_recovered"].mean(),
            "drawn": len(own),
        }
        for column in ("parameters", "flops_per_token_forward"):
            parts = [part[column].mean() for part in costs if len(part)]
            row[column] = sum(parts) if parts else np.nan
        row |= {status: (own["status"] == status).mean() for status in STATUSES}
        for scorer in SCORERS:
            name = scorer.removeprefix("rule-")
            for suffix, explanation, which, scope in (
                ("", "own", "explained", "all"),
                ("_all", "own", "all", "all"),
                ("_matter", "own", "explained", "matter"),
                ("_shuffled", "shuffled", "explained", "all"),
            ):
                one = pick(
                    means,
                    family=family,
                    scorer=scorer,
                    explanation=explanation,
                    latents=which,
                    layers=scope,
                    seed="all",
                    measure=ACCURACY,
                ).iloc[0]
                row |= {
                    f"{name}{suffix}": one["mean"],
                    f"{name}{suffix}_low": one["low"],
                    f"{name}{suffix}_high": one["high"],
                }
                row[f"{name}{suffix}_n"] = one["n"]
                if suffix == "_shuffled":
                    row[f"{name}_shuffled_at_chance"] = one["at_chance"]
        row["pair_difference"] = max(pair["difference"], key=abs)
        row["pair_matched"] = bool(pair["matched"].all())
        rows.append(row)
    return pd.DataFrame(rows)


def _short(name: str) -> str:
    """A hub id, or the last parts of a path that begins elsewhere."""
    return "/".join([part for part in Path(name).parts if part != ".."][-2:])
