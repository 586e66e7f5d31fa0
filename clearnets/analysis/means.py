"""Tables of mean scores: by family, by layer and by firing rate."""

from __future__ import annotations

from collections.abc import Sequence
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
    WHICH,
    Sample,
    bootstrap,
    by_seed,
    mean_estimate,
    own_scores,
    shuffled_by_bin,
    shuffled_scores,
    unless_accuracy,
)
from clearnets.analysis.sources import MEASURES, SCORERS
from clearnets.autointerp.records import EXPLAINED
from clearnets.config import Config
from clearnets.families import NO_LAYER

# Bins of firing rate in `rates`, per factor of ten.
BINS_PER_DECADE = 2
# A bin of firing rate with fewer latents than this has no mean worth drawing.
MIN_BIN = 5


def mean_table(
    latents: pd.DataFrame,
    config: Config,
    scorers: Sequence[str] = SCORERS,
    measures: Sequence[str] = MEASURES,
) -> pd.DataFrame:
    """Return mean scores per family with bootstrap intervals over latents within (seed, layer).

    `latents` explained: those that were explained and scored; all: every latent drawn, with those
    that could not be explained or scored at chance; live: the same without the dead.
    `explanation` shuffled: each latent is judged by the explanation of every other one of its
    layer, which must lie at chance: `at_chance` says that the interval lies within `margin` of it.
    Its mean is not 0.5 to the last digit, because the
    latents of a layer depend on each other: some share words, and all compete. `layers` matter:
    only layers whose mean-ablation costs enough in the model that the family reads. `seed` all, and
    each training seed where there are several. No interval is given from fewer than `min_stratum`
    latents. `low`, `high` are over latents; `clearnets.analysis.multilevel_bootstrap` says what
    those over layers and seeds speak for. `measure` is balanced_accuracy, and for explained latents
    of all layers also precision, recall and coverage (found windows / windows asked for).
    """
    kinds = [
        (ACCURACY, explanation, which, layers)
        for layers in ("all", "matter")
        for explanation, which in (("shuffled", "explained"), *product(("own",), WHICH))
    ]
    kinds += [(measure, "own", "explained", "all") for measure in measures]
    cases = product(by_seed(latents, config).items(), ordered(config.families), scorers)
    rows = []
    for (seed, group), family, scorer in cases:
        own = pick(group, family=family)
        rows += [_mean_row(own, (family, seed, scorer, *kind), config) for kind in kinds]
    return pd.DataFrame(rows)


KEYS = ("family", "seed", "scorer", "measure", "explanation", "latents", "layers")


def _mean_row(own: pd.DataFrame, key: tuple[str, ...], config: Config) -> dict[str, Any]:
    family, seed, scorer, measure, explanation, which, layers = key
    settings = config.collate
    if explanation == "own":
        sample = own_scores(own, scorer, layers, which, measure)
    else:
        sample = shuffled_scores(own, scorer, layers, minus=False)
    named = (family, seed, scorer, layers, which, explanation, *unless_accuracy(measure))
    estimate = mean_estimate(sample, settings, *named)
    above = multilevel_bootstrap.intervals(
        estimate.value,
        lambda drawn: multilevel_bootstrap.mean_over(drawn, sample),
        (sample,),
        **bootstrap(settings, *named, "levels"),
    )
    return {
        **dict(zip(KEYS, key)),
        "n": len(sample),
        **estimate.columns("mean"),
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
            estimate = mean_estimate(sample, config.collate, family, scorer, "layer", str(layer))
            cells = {"family": family, "scorer": scorer, "layer": layer, "n": len(sample)}
            rows.append(cells | estimate.columns("mean"))
    columns = ("family", "scorer", "layer", "n", "mean", "low", "high")
    return columns_of(pd.DataFrame(rows), columns)


def rate_table(latents: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return mean scores of explained latents by bin of firing rate, with their own explanation and
    with those of all other latents of their layer. `n`: latents of the bin."""
    rows = []
    for family, scorer in product(ordered(config.families), SCORERS):
        own = pick(latents, family=family)
        own_by_bin = _own_by_bin(own, scorer)
        shuffled = shuffled_by_bin(own, scorer, BINS_PER_DECADE)
        samples = [("own", *one) for one in own_by_bin.items()]
        samples += [("shuffled", *one) for one in shuffled.items()]
        for explanation, index, sample in samples:
            count = int(np.isfinite(sample.rate).sum())
            if count < MIN_BIN:
                continue
            random = bootstrap(config.collate, family, scorer, explanation, "rate", str(index))
            estimate = stats.mean_estimate(sample.value, sample.strata, **random)
            low, high = stats.bin_edges(index, BINS_PER_DECADE)
            cells = {"family": family, "scorer": scorer, "explanation": explanation}
            cells |= {"rate_low": low, "rate_high": high, "n": count}
            rows.append(cells | estimate.columns("mean"))
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
