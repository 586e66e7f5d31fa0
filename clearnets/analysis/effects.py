"""Tables of what latents do to the next token (`clearnets effects`).

| table | one row per |
|---|---|
| effects | explained latent: what ablating it does, and how well sentences name it |
| effect_means | family, measure: mean over latents, with its interval |
| effect_weighted | family, scorer by rules: mean score, latents weighed by what they do |

Divergences and costs are in nats per token at which the latent is active. A latent's weight is its
divergence times its firing rate: the nats per token of text by which predictions change without it.
A latent that does nothing then counts for nothing.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of, ordered, pick, sort
from clearnets.analysis.samples import bootstrap, interval, layer_strata
from clearnets.analysis.sources import SCORERS
from clearnets.config import Config

KEYS = ["family", "seed", "layer", "latent"]
SENTENCES = ("effect", "lens", "random")
MEASURES = (
    *("divergence", "divergence_random", "cost"),
    *(f"{name}_auroc{end}" for name in SENTENCES for end in ("", "_shuffled")),
)
COLUMNS = (
    *(*KEYS, "tokens_score", "divergence", "divergence_random", "cost"),
    *(f"{name}_auroc" for name in SENTENCES),
    "effect",
)
MEAN_COLUMNS = ("family", "measure", "n", "mean", "low", "high", "confidence")
WEIGHTED_COLUMNS = ("family", "scorer", "n", "mean", "weighted", "low", "high", "confidence")


def tables(found: pd.DataFrame, judged: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables by name.

    Args:
        found: records of `clearnets effects` with family and seed.
        judged: latents with their firing rate and scores by rules.
    """
    families = ordered(set(found["family"]))
    means = [
        _mean(pick(found, family=family), family, measure, config)
        for family, measure in product(families, MEASURES)
    ]
    both = found.merge(judged[[*KEYS, "rate", *SCORERS]], on=KEYS)
    weighted = [
        _weighted(pick(both, family=family), family, scorer, config)
        for family, scorer in product(families, SCORERS)
    ]
    return {
        "effects": columns_of(sort(found, KEYS), COLUMNS),
        "effect_means": pd.DataFrame(means, columns=pd.Index(MEAN_COLUMNS)),
        "effect_weighted": pd.DataFrame(weighted, columns=pd.Index(WEIGHTED_COLUMNS)),
    }


def above_others(
    found: pd.DataFrame, config: Config, scorer: str = "effect", column: str = "effect_auroc"
) -> pd.DataFrame:
    """Return how much better own sentences name what a latent does than those of other latents of
    its layer, by family, as rows of `instruments`.

    Args:
        scorer: their name there.
        column: of the score; that of others' sentences is called `COLUMN_shuffled`.
    """
    rows = []
    for family in ordered(set(found["family"])):
        own = pick(found, family=family).dropna(subset=[column, f"{column}_shuffled"])
        value = (own[column] - own[f"{column}_shuffled"]).to_numpy(np.float64)
        how = bootstrap(config.collate, scorer, family, "above")
        estimate = stats.mean_estimate(value, layer_strata(own), **how)
        names = {"scorer": scorer, "test": "own", "a": family, "b": "shuffled"}
        rows.append(names | estimate.columns("difference") | {"passes": estimate.low > 0})
    return pd.DataFrame(rows)


def _mean(own: pd.DataFrame, family: str, measure: str, config: Config) -> dict[str, Any]:
    own = own.dropna(subset=[measure])
    estimate = stats.mean_estimate(
        own[measure].to_numpy(np.float64),
        layer_strata(own),
        **bootstrap(config.collate, "effect", family, measure),
    )
    estimate = interval(estimate, config.collate, len(own))
    names = {"family": family, "measure": measure, "n": len(own)}
    return names | estimate.columns("mean") | {"confidence": config.collate.confidence}


def _weighted(own: pd.DataFrame, family: str, scorer: str, config: Config) -> dict[str, Any]:
    """Return a weighted mean; the same latents are drawn for its numerator and denominator."""
    own = own.dropna(subset=[scorer, "divergence"])
    score = own[scorer].to_numpy(np.float64)
    weight = (own["divergence"] * own["rate"]).clip(lower=0).to_numpy(np.float64)
    row: dict[str, Any] = {"family": family, "scorer": scorer, "n": len(own)}
    row |= {"confidence": config.collate.confidence}
    if not weight.sum():
        return row
    strata, draws = layer_strata(own), []
    for values in (weight * score, weight):
        how = bootstrap(config.collate, "effect-weighted", family, scorer)
        draws.append(stats.mean_draws(values, strata, resamples=how["resamples"], rng=how["rng"]))
    value = float(weight @ score / weight.sum())
    estimate = stats.percentile_interval(value, draws[0] / draws[1], config.collate.confidence)
    estimate = interval(estimate, config.collate, len(own))
    return row | {"mean": score.mean()} | estimate.columns("weighted")
