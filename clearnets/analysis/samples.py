"""Samples of latents' scores, from which means and differences are estimated."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of, pick
from clearnets.analysis.sources import CONTROLS
from clearnets.autointerp.records import DEAD, EXPLAINED
from clearnets.config import Collate, Config
from clearnets.pipeline.runtime import seed_for

CHANCE = 0.5
ACCURACY = "balanced_accuracy"
# Which latents a mean is over: see `chosen`.
WHICH = ("explained", "live", "all")
GROUPING = ("seed", "layer", "rate", "windows", "status", "matters")


@dataclass(frozen=True)
class Sample:
    """Scores of one family's latents by one scorer, with what they are grouped by. Arrays (N,)."""

    value: stats.Floats
    rate: stats.Floats
    windows: stats.Floats
    seeds: stats.Ints
    layers: stats.Ints
    strata: stats.Ints

    def __len__(self) -> int:
        return len(self.value)


def layer_strata(latents: pd.DataFrame) -> stats.Ints:
    """Return the stratum of each latent: its layer in its training run."""
    return stats.strata_ids(*(latents[key].to_numpy(np.int64) for key in ("seed", "layer")))


def chosen(latents: pd.DataFrame, layers: str, which: str) -> pd.DataFrame:
    """Return explained latents, live ones or all drawn ones (`which`), of all layers or those that
    matter."""
    if layers == "matter":
        latents = pick(latents, matters=True)
    if which == "live":
        return cast(pd.DataFrame, latents[latents["status"] != DEAD])
    return pick(latents, status=EXPLAINED) if which == "explained" else latents


def own_scores(
    latents: pd.DataFrame, scorer: str, layers: str, which: str, measure: str = ACCURACY
) -> Sample:
    """Return the latents' own scores. Without one a latent counts as chance in balanced accuracy
    and is left out of other measures (a rule that never says yes has no precision). Where no
    explained latent has a score this scorer has not judged, and the sample is empty."""
    column = scorer if measure == ACCURACY else f"{scorer}-{measure}"
    latents = columns_of(latents, [*GROUPING, column])
    explained = pick(latents, status=EXPLAINED)[column].to_numpy(np.float64)
    latents = chosen(latents, layers, which)
    if len(explained) and np.isnan(explained).all():
        latents = latents.iloc[:0]
    if measure != ACCURACY:
        latents = latents.dropna(subset=[column])
    value = latents[column].to_numpy(np.float64)
    return _grouped(latents, np.where(np.isnan(value), CHANCE, value))


def _grouped(latents: pd.DataFrame, value: stats.Floats) -> Sample:
    seeds, layers = (latents[name].to_numpy(np.int64) for name in ("seed", "layer"))
    return Sample(
        value,
        latents["rate"].to_numpy(np.float64),
        latents["windows"].to_numpy(np.float64),
        seeds,
        layers,
        stats.strata_ids(seeds, layers),
    )


def shuffled_scores(latents: pd.DataFrame, scorer: str, layers: str, *, minus: bool) -> Sample:
    """Return scores with the other latents' explanations, or a latent's own score minus that.

    The control's mean is over pairs of latents of a layer, so what varies with a latent is both
    how the others' explanations do on it and how its own does on the others (`stats.paired`). A
    latent that is the only scored one of its layer has no other's explanation.
    """
    sample, rows, columns = _shuffled(latents, scorer, layers)
    pairs = stats.paired(rows, columns, sample.strata)
    return replace(sample, value=sample.value - pairs if minus else pairs)


def shuffled_by_bin(latents: pd.DataFrame, scorer: str, per_decade: int) -> dict[int, Sample]:
    """Return by bin of firing rate scores with the explanations of all other latents of the layer.
    A sample holds all latents, since the explanations are theirs; those of the bin have a `rate`,
    the others nan."""
    sample, rows, columns = _shuffled(latents, scorer, "all")
    bins = stats.rate_bin(sample.rate, per_decade)
    return {
        int(index): replace(
            sample,
            value=stats.paired(rows, columns, sample.strata, bins == index),
            rate=np.where(bins == index, sample.rate, np.nan),
        )
        for index in np.unique(bins)
    }


def _shuffled(
    latents: pd.DataFrame, scorer: str, layers: str
) -> tuple[Sample, stats.Floats, stats.Floats]:
    """Return the own scores of latents with a control, and the control's means from both sides."""
    latents = chosen(latents, layers, "explained")
    latents = latents.dropna(subset=[f"{scorer}-shuffled"])
    rows, columns = (latents[f"{scorer}-{name}"].to_numpy(np.float64) for name in CONTROLS)
    return _grouped(latents, latents[scorer].to_numpy(np.float64)), rows, columns


def by_seed(latents: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """Return all latents and, where there are several training seeds, those of each."""
    groups = {"all": latents}
    if len(config.seeds) > 1:
        groups |= {str(seed): pick(latents, seed=seed) for seed in config.seeds}
    return groups


def interval(estimate: stats.Estimate, settings: Collate, *counts: int) -> stats.Estimate:
    """Return the estimate, without its interval if any of `counts` is below `min_stratum`."""
    if min(counts) >= settings.min_stratum:
        return estimate
    return stats.Estimate(estimate.value, math.nan, math.nan)


def mean_estimate(sample: Sample, settings: Collate, *names: str) -> stats.Estimate:
    """Return the mean with its interval over latents, from random numbers of this name."""
    estimate = stats.mean_estimate(sample.value, sample.strata, **bootstrap(settings, *names))
    return interval(estimate, settings, len(sample))


def unless_accuracy(measure: str) -> list[str]:
    """Return the part of a random seed's name for measures other than balanced accuracy."""
    return [] if measure == ACCURACY else [measure]


def bootstrap(settings: Collate, *names: str) -> dict[str, Any]:
    rng = np.random.default_rng(seed_for(settings.seed, "bootstrap", *names))
    return {"resamples": settings.resamples, "confidence": settings.confidence, "rng": rng}
