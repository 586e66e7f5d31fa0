"""Differences between families, unmatched and matched for activity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from typing import Any, cast

import pandas as pd

from clearnets.autointerp import statistics as stats
from clearnets.config import STEP0_TWINS, TWINS, Config
from clearnets.tables.frames import columns_of, ordered, pick
from clearnets.tables.samples import bootstrap, by_seed, interval, own_scores, shuffled_scores
from clearnets.tables.sources import SCORERS, Sources

# The families whose clarity is the question; the others are controls.
SUBJECTS: tuple[str, ...] = ("native", "transcoder", "skip-transcoder", "sae")


def tables(
    sources: Sources, config: Config, made: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """`contrasts` and `strata`."""
    contrasts, strata = contrast_tables(made["latents"], made["pair"], config)
    return {"contrasts": contrasts, "strata": strata}


def comparisons(families: Iterable[str]) -> list[tuple[str, str, str]]:
    """(kind, a, b) of every contrast a - b that these families allow, the primary one first."""
    present = set(families)
    subjects = [family for family in SUBJECTS if family in present]
    pairs = [("primary", "native", "transcoder")]
    pairs += [("secondary", "native", other) for other in ("sae", "skip-transcoder")]
    twins = cast(Mapping[str, str], TWINS)
    pairs += [("untrained twin", family, twins[family]) for family in subjects]
    models = cast(Mapping[str, str], STEP0_TWINS)
    pairs += [("untrained model", family, models[family]) for family in models if family in present]
    for control in ("neurons", "token-unigram"):
        pairs += [(control, family, control) for family in subjects]
    return [(kind, a, b) for kind, a, b in pairs if {a, b} <= present]


def contrast_tables(
    latents: pd.DataFrame, pair: pd.DataFrame, config: Config, scorers: Sequence[str] = SCORERS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differences between families, unmatched and matched for activity, and the rate strata.

    `matching` none, rate or activity is described in `clearnets.autointerp.statistics`; `own
    shuffled` contrasts are paired by latent. `unmatched_a` and `unmatched_b` are the shares of the
    latents that found no counterpart. `pair_matched` is false where a pair's losses differ by more
    than the tolerance. Seeds and intervals as in `mean_table`.
    """
    rows: list[dict[str, Any]] = []
    strata: list[dict[str, Any]] = []
    matched = dict(zip(pair["seed"].astype(str), pair["matched"]))
    for seed, group in by_seed(latents, config).items():
        by_family = {family: pick(group, family=family) for family in ordered(config.families)}
        flag = all(matched.values()) if seed == "all" else matched[seed]
        for key, contrast in _contrasts(by_family, seed, config, strata, scorers):
            counts = (contrast.used_a, contrast.used_b)
            difference = interval(contrast.difference, config.collate, *counts)
            rows.append(
                {
                    **key,
                    "difference": difference.value,
                    "low": difference.low,
                    "high": difference.high,
                    "n_a": contrast.used_a,
                    "n_b": contrast.used_b,
                    "unmatched_a": contrast.unmatched_a,
                    "unmatched_b": contrast.unmatched_b,
                    "pair_matched": flag,
                    "confidence": config.collate.confidence,
                }
            )
    columns = ["a", "b", "scorer", "low", "high", "n_a", "n_b", "mean_a", "mean_b", "used"]
    table = columns_of(pd.DataFrame(strata), columns)
    return pd.DataFrame(rows), table.rename(columns={"low": "rate_low", "high": "rate_high"})


def _contrasts(
    by_family: Mapping[str, pd.DataFrame],
    seed: str,
    config: Config,
    strata: list[dict[str, Any]],
    scorers: Sequence[str],
) -> Iterator[tuple[dict[str, str], stats.Contrast]]:
    """Every contrast with its names; the strata of all seeds together are added to `strata`."""
    settings = config.collate

    def names(kind: str, a: str, b: str, *rest: str) -> dict[str, str]:
        keys = ("kind", "a", "b", "scorer", "layers", "latents", "matching", "seed")
        return dict(zip(keys, (kind, a, b, *rest, seed)))

    for (kind, a, b), scorer, layers in product(
        comparisons(config.families), scorers, ("all", "matter")
    ):
        for which in ("explained", "all"):
            x = own_scores(by_family[a], scorer, layers, which)
            y = own_scores(by_family[b], scorer, layers, which)
            key = names(kind, a, b, scorer, layers, which, "none")
            random = bootstrap(settings, *key.values())
            yield key, stats.unmatched(x.value, x.strata, y.value, y.strata, **random)
        x = own_scores(by_family[a], scorer, layers, "explained")
        y = own_scores(by_family[b], scorer, layers, "explained")
        key = names(kind, a, b, scorer, layers, "explained", "rate")
        contrast, bins = stats.rate_matched(
            x.value,
            x.rate,
            y.value,
            y.rate,
            min_stratum=settings.min_stratum,
            **bootstrap(settings, *key.values()),
        )
        yield key, contrast
        if layers == "all" and seed == "all":
            strata += [{"a": a, "b": b, "scorer": scorer, **asdict(one)} for one in bins]
        key = names(kind, a, b, scorer, layers, "explained", "activity")
        random = bootstrap(settings, *key.values())
        yield (
            key,
            stats.activity_matched(
                x.value, x.windows, y.value, y.windows, min_pairs=settings.min_stratum, **random
            ),
        )
    for family, scorer, layers in product(by_family, scorers, ("all", "matter")):
        x = shuffled_scores(by_family[family], scorer, layers, minus=True)
        key = names("own shuffled", family, "shuffled", scorer, layers, "explained", "none")
        estimate = stats.mean_estimate(x.value, x.strata, **bootstrap(settings, *key.values()))
        yield key, stats.Contrast(estimate, len(x), len(x), 0.0, 0.0)
