"""Tables of the scorer by embeddings, which is independent of the judge of rules.

Its scores are areas under a curve, not accuracies, so they have tables of their own.

| table | one row per |
|---|---|
| embedding | sampled latent: windows, AUROC with its own explanation and with others' |
| embedding_means | as `means` |
| embedding_contrasts | as `contrasts` |
| embedding_roc | family, explanation, share of non-activating windows: mean ROC curve |
| embedding_agreement | family, scorer by rules: rank correlation over latents |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from clearnets.analysis import statistics as stats
from clearnets.analysis.contrasts import contrast_tables
from clearnets.analysis.frames import columns_of, ordered, pick, sort
from clearnets.analysis.means import mean_table
from clearnets.analysis.samples import interval
from clearnets.analysis.sources import EMBEDDING, SCORERS, Sources
from clearnets.config import Config

KEYS = ["family", "seed", "layer", "latent"]


def tables(
    sources: Sources, judged: pd.DataFrame, pair: pd.DataFrame, config: Config
) -> dict[str, pd.DataFrame]:
    """Return the tables of the scorer by name.

    Args:
        judged: the same latents with scores by rules, and whether their layer matters.
    """
    latents = sort(sources.similarity, KEYS)
    assert (latents[KEYS].to_numpy() == judged[KEYS].to_numpy()).all()
    grouped = latents.assign(matters=judged["matters"].to_numpy())
    only: dict[str, Any] = {"scorers": (EMBEDDING,), "measures": ()}
    contrasts, _ = contrast_tables(grouped, pair, config, **only)
    return {
        "embedding": latents,
        "embedding_means": mean_table(grouped, config, **only).drop(columns="measure"),
        "embedding_contrasts": contrasts.drop(columns="measure"),
        "embedding_roc": roc_table(sources.roc),
        "embedding_agreement": agreement(latents.merge(judged[[*KEYS, *SCORERS]], on=KEYS), config),
    }


def roc_table(layers: pd.DataFrame) -> pd.DataFrame:
    """Return mean ROC curves over a family's `n` latents of all layers and seeds, weighing latents
    alike.

    At equal shares of non-activating windows (`fpr`), so that the area under a curve is the mean
    AUROC of `embedding_means`, up to the width of its steps.
    """
    keys = ["family", "explanation", "fpr"]
    weighed = layers.assign(tpr=layers["tpr"] * layers["latents"])
    sums: Any = weighed.groupby(keys, as_index=False)[["tpr", "latents"]].sum()
    table = sums.assign(tpr=sums["tpr"] / sums["latents"]).rename(columns={"latents": "n"})
    return sort(columns_of(table, [*keys, "tpr", "n"]), keys)


def agreement(latents: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return rank correlations between this scorer and those by rules, over all layers and seeds.

    `latents` holds both scores. No interval is given from fewer than `min_stratum` latents, and
    no row where the rules do not judge.
    """
    settings, rows = config.collate, []
    there = [scorer for scorer in SCORERS if np.isfinite(latents[scorer].to_numpy(float)).any()]
    for family in ordered(config.families):
        for scorer in there:
            both = pick(latents, family=family).dropna(subset=[EMBEDDING, scorer])
            estimate = rank_correlation(
                both[EMBEDDING].to_numpy(), both[scorer].to_numpy(), settings.confidence
            )
            estimate = interval(estimate, settings, len(both))
            row: dict[str, Any] = {"family": family, "scorer": scorer, "n": len(both)}
            row |= estimate.columns("correlation")
            rows.append(row | {"confidence": settings.confidence})
    columns = ["family", "scorer", "n", "correlation", "low", "high", "confidence"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def rank_correlation(x_N: stats.Floats, y_N: stats.Floats, confidence: float) -> stats.Estimate:
    """Return Spearman's rank correlation, its interval by Fisher's transformation with the variance
    (1 + r^2/2)/(N - 3) of Bonett and Wright (2000); `NOTHING` where either has a single value.

    Latents count as drawn at random from all; N > 3.
    """
    if min(len(np.unique(x_N)), len(np.unique(y_N))) < 2 or len(x_N) <= 3:
        return stats.NOTHING
    found: Any = spearmanr(x_N, y_N)
    r = float(found.statistic)
    reach = norm.isf((1 - confidence) / 2) * np.sqrt((1 + r**2 / 2) / (len(x_N) - 3))
    middle = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    low, high = np.tanh([middle - reach, middle + reach])
    return stats.Estimate(r, float(low), float(high))
