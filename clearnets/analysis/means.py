"""Tables of mean scores: by family, by layer and by firing rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import product
from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets.analysis import multilevel_bootstrap
from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of, ordered, pick
from clearnets.analysis.samples import (
    ACCURACY,
    CHANCE,
    Sample,
    bootstrap,
    by_seed,
    interval,
    own_scores,
    shuffled_by_bin,
    shuffled_scores,
    unless_accuracy,
)
from clearnets.analysis.sources import MEASURES, SCORERS, Sources
from clearnets.autointerp.hookpoints import NO_LAYER
from clearnets.autointerp.records import EXPLAINED
from clearnets.config import Config

# Bins of firing rate in `rates`, per factor of ten.
BINS_PER_DECADE = 2
# A bin of firing rate with fewer latents than this has no mean worth drawing.
MIN_BIN = 5


def tables(
    sources: Sources, config: Config, made: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """Return `means`, `layer_means` and `rates`."""
    latents = made["latents"]
    return {
        "means": mean_table(latents, config),
        "layer_means": layer_mean_table(latents, config),
        "rates": rate_table(latents, config),
    }


def mean_table(
    latents: pd.DataFrame,
    config: Config,
    scorers: Sequence[str] = SCORERS,
    measures: Sequence[str] = MEASURES,
) -> pd.DataFrame:
    """Return mean scores per family with bootstrap intervals over latents within (seed, layer).

    `latents` explained: those that were explained and scored; all: every latent drawn, with those
    that could not be explained or scored at chance. `explanation` shuffled: each latent is judged
    by the explanation of every other one of its layer, which must lie at chance: `at_chance` says
    that the interval lies within `margin` of it. Its mean is not 0.5 to the last digit, because the
    latents of a layer depend on each other: some share words, and all compete. `layers` matter:
    only layers whose mean-ablation costs enough in the model that the family reads. `seed` all, and
    each training seed where there are several. No interval is given from fewer than `min_stratum`
    latents. `low`, `high` are over latents; `clearnets.analysis.multilevel_bootstrap` says what
    those over layers and seeds speak for. `measure` is balanced_accuracy, and for explained latents
    of all layers also precision, recall and coverage (found windows / windows asked for).
    """
    kinds = (("explained", "own"), ("explained", "shuffled"), ("all", "own"))
    cases = product(by_seed(latents, config).items(), ordered(config.families), scorers)
    rows = []
    for (seed, group), family, scorer in cases:
        own = pick(group, family=family)
        for layers in ("all", "matter"):
            for kind in kinds:
                rows.append(_mean_row(own, (family, seed, scorer, *kind, layers), config))
        for measure in measures:
            names = (family, seed, scorer, "explained", "own", "all")
            rows.append(_mean_row(own, names, config, measure))
    return pd.DataFrame(rows)


def _mean_row(
    own: pd.DataFrame,
    names: tuple[str, str, str, str, str, str],
    config: Config,
    measure: str = ACCURACY,
) -> dict[str, Any]:
    family, seed, scorer, which, explanation, layers = names
    settings = config.collate
    if explanation == "own":
        sample = own_scores(own, scorer, layers, which, measure)
    else:
        sample = shuffled_scores(own, scorer, layers, minus=False)
    named = (family, seed, scorer, layers, which, explanation, *unless_accuracy(measure))
    estimate = stats.mean_estimate(sample.value, sample.strata, **bootstrap(settings, *named))
    estimate = interval(estimate, settings, len(sample))
    above = multilevel_bootstrap.intervals(
        estimate.value,
        lambda drawn: multilevel_bootstrap.mean_over(drawn, sample),
        (sample,),
        **bootstrap(settings, *named, "levels"),
    )
    return {
        "family": family,
        "seed": seed,
        "scorer": scorer,
        "measure": measure,
        "explanation": explanation,
        "latents": which,
        "layers": layers,
        "n": len(sample),
        "mean": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        **multilevel_bootstrap.columns(above, config, enough=len(sample) >= settings.min_stratum),
        "at_chance": estimate.within(CHANCE, settings.margin),
        "confidence": settings.confidence,
    }


def layer_mean_table(latents: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return mean scores of explained latents by layer, over all seeds, with intervals over
    latents.

    Of families that read layers. No interval is given from fewer than `min_stratum` latents.
    """
    rows = []
    layered = pick(latents, status=EXPLAINED)
    layered = cast(pd.DataFrame, layered[layered["layer"] != NO_LAYER])
    for family in ordered(set(layered["family"])):
        own = pick(layered, family=family)
        for scorer, layer in product(SCORERS, np.unique(own["layer"])):
            sample = own_scores(pick(own, layer=layer), scorer, "all", "explained")
            random = bootstrap(config.collate, family, scorer, "layer", str(layer))
            estimate = stats.mean_estimate(sample.value, sample.strata, **random)
            estimate = interval(estimate, config.collate, len(sample))
            cells = {"family": family, "scorer": scorer, "layer": layer, "n": len(sample)}
            ends = {"mean": estimate.value, "low": estimate.low, "high": estimate.high}
            rows.append({**cells, **ends})
    columns = ("family", "scorer", "layer", "n", "mean", "low", "high")
    return columns_of(pd.DataFrame(rows), columns)


def rate_table(latents: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return mean scores of explained latents by bin of firing rate, with their own explanation and
    with those of all other latents of their layer. `n`: latents of the bin."""
    rows = []
    for family in ordered(config.families):
        own = pick(latents, family=family)
        for scorer in SCORERS:
            samples = {
                "own": _own_by_bin(own, scorer),
                "shuffled": shuffled_by_bin(own, scorer, BINS_PER_DECADE),
            }
            for explanation, by_bin in samples.items():
                for index, sample in by_bin.items():
                    count = int(np.isfinite(sample.rate).sum())
                    if count < MIN_BIN:
                        continue
                    names = (family, scorer, explanation, "rate", str(index))
                    estimate = stats.mean_estimate(
                        sample.value, sample.strata, **bootstrap(config.collate, *names)
                    )
                    low, high = stats.bin_edges(index, BINS_PER_DECADE)
                    rows.append(
                        {
                            "family": family,
                            "scorer": scorer,
                            "explanation": explanation,
                            "rate_low": low,
                            "rate_high": high,
                            "n": count,
                            "mean": estimate.value,
                            "low": estimate.low,
                            "high": estimate.high,
                        }
                    )
    columns = ["family", "scorer", "explanation", "rate_low", "rate_high"]
    return columns_of(pd.DataFrame(rows), [*columns, "n", "mean", "low", "high"])


def _own_by_bin(latents: pd.DataFrame, scorer: str) -> dict[int, Sample]:
    """Return the latents' own scores by bin of firing rate; a bin is one stratum."""
    sample = own_scores(latents, scorer, "all", "explained")
    bins = stats.rate_bin(sample.rate, BINS_PER_DECADE)
    return {
        int(index): Sample(
            *(getattr(sample, field.name)[bins == index] for field in fields(sample)[:-1]),
            strata=np.zeros((bins == index).sum(), np.int64),
        )
        for index in np.unique(bins)
    }
