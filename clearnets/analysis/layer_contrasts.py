"""Primary contrasts by layer, and whether they differ between layers.

| table | one row per |
|---|---|
| layer_contrasts | primary pair of families, scorer, layer; all seeds |
| layer_interactions | primary pair of families, scorer: tests of layer x family |
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import chdtrc

from clearnets.analysis import multilevel_bootstrap
from clearnets.analysis import statistics as stats
from clearnets.analysis.contrasts import PRIMARY, comparisons
from clearnets.analysis.frames import columns_of, pick
from clearnets.analysis.samples import Sample, bootstrap, interval, own_scores
from clearnets.config import Config
from clearnets.families import NO_LAYER

KEYS = ("a", "b", "scorer")
Pair = tuple[Sample, Sample]


def layer_contrast_tables(
    sampled: Mapping[str, pd.DataFrame], config: Config
) -> dict[str, pd.DataFrame]:
    """Return both tables, over the latents of the primary contrasts and all seeds.

    Args:
        sampled: by scorer, sampled latents with its scores, and whether their layer matters.

    layer_contrasts: the difference of the two families in a layer. `low`, `high` are over latents
    within seeds, and `_seeds` over training seeds. `matters`: ablating the layer costs enough in
    the models of both families and all seeds.

    layer_interactions, over the `layers` that matter and hold at least `min_stratum` latents of
    both: `q` is Cochran's (1954) sum of squared distances of the layers' differences from their
    weighted mean, in units of their bootstrap variances over latents; `p` its chi-squared test of
    one difference in all layers, for these trained models. `slope`: how much the difference grows
    per layer, by least squares, each layer weighing alike, with intervals over latents and over
    training seeds.
    """
    rows: list[dict[str, Any]] = []
    tests: list[dict[str, Any]] = []
    pairs = [(a, b) for kind, a, b in comparisons(config.families) if kind == "primary"]
    for (a, b), (scorer, latents) in product(pairs, sampled.items()):
        names = {"a": a, "b": b, "scorer": scorer}
        both = [pick(latents, family=family) for family in (a, b)]
        layers = set(both[0]["layer"]) & set(both[1]["layer"]) - {NO_LAYER}
        found: dict[int, Pair] = {}
        for layer in sorted(layers):
            own = [pick(one, layer=layer) for one in both]
            x, y = (own_scores(one, scorer, "all", PRIMARY["latents"]) for one in own)
            matters = all(bool(one["matters"].all()) for one in own)
            rows.append(names | {"layer": layer, **_difference(x, y, names, layer, config)})
            rows[-1] |= {"matters": matters, "confidence": config.collate.confidence}
            if matters and min(len(x), len(y)) >= config.collate.min_stratum:
                found[layer] = (x, y)
        tests.append(names | _interaction(found, names, config))
    ends = ("low_seeds", "high_seeds") if len(config.seeds) > 1 else ()
    columns = (*KEYS, "layer", "difference", "low", "high", *ends, "n_a", "n_b", "matters")
    test_columns = (*KEYS, "layers", "q", "p", "slope", "slope_low", "slope_high")
    test_columns += tuple(f"slope_{end}" for end in ends)
    return {
        "layer_contrasts": columns_of(pd.DataFrame(rows), (*columns, "confidence")),
        "layer_interactions": columns_of(pd.DataFrame(tests), (*test_columns, "confidence")),
    }


def _difference(
    x: Sample, y: Sample, names: Mapping[str, str], layer: int, config: Config
) -> dict[str, Any]:
    """Return the difference in one layer with its intervals."""
    key = (*names.values(), "by layer", str(layer))
    contrast = stats.unmatched(
        x.value, x.strata, y.value, y.strata, **bootstrap(config.collate, *key)
    )
    counts = (contrast.used_a, contrast.used_b)
    found = interval(contrast.difference, config.collate, *counts)
    above = multilevel_bootstrap.intervals(
        found.value,
        lambda drawn: multilevel_bootstrap.difference_over(drawn, x, y),
        (x, y),
        **bootstrap(config.collate, *key, "levels"),
    )
    enough = min(counts) >= config.collate.min_stratum
    cells = found.columns("difference") | {"n_a": counts[0], "n_b": counts[1]}
    return cells | multilevel_bootstrap.columns(above, config, enough=enough)


def _interaction(
    found: Mapping[int, Pair], names: Mapping[str, str], config: Config
) -> dict[str, Any]:
    """Return the tests of whether the difference varies between layers, given the samples of each
    layer; without values below two layers."""
    settings, count = config.collate, len(found)
    cells: dict[str, Any] = {"layers": count, "confidence": settings.confidence}
    if count < 2:
        nothing = ("q", "p", "slope", "slope_low", "slope_high")
        return cells | dict.fromkeys((*nothing, "slope_low_seeds", "slope_high_seeds"), np.nan)
    random = bootstrap(settings, *names.values(), "interaction")
    resampled = {key: random[key] for key in ("resamples", "rng")}
    draws_LR = np.stack(
        [
            stats.mean_draws(x.value, x.strata, **resampled)
            - stats.mean_draws(y.value, y.strata, **resampled)
            for x, y in found.values()
        ]
    )
    value_L = np.array([x.value.mean() - y.value.mean() for x, y in found.values()])
    with np.errstate(divide="ignore", invalid="ignore"):
        weight_L = 1 / draws_LR.var(axis=1)
        mean = (weight_L * value_L).sum() / weight_L.sum()
        q = float((weight_L * (value_L - mean) ** 2).sum())
    centred_L = np.array(list(found)) - np.mean(list(found))
    rise_L = centred_L / (centred_L**2).sum()
    slope = stats.percentile_interval(rise_L @ value_L, rise_L @ draws_LR, settings.confidence)

    samples = [sample for pair in found.values() for sample in pair]
    drawn = multilevel_bootstrap.draw("seeds", *samples, **resampled)
    over_LR = [multilevel_bootstrap.difference_over(drawn, *pair) for pair in found.values()]
    seeds = min(len(np.unique(sample.seeds)) for sample in samples)
    above = multilevel_bootstrap.interval(
        slope.value, rise_L @ np.stack(over_LR), seeds, confidence=settings.confidence
    )
    return {
        **cells,
        "q": q,
        "p": float(chdtrc(count - 1, q)),
        **slope.columns("slope", "slope_"),
        "slope_low_seeds": above.low,
        "slope_high_seeds": above.high,
    }
