"""Differences between families: unmatched, and matched for activity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from itertools import product
from typing import Any

import pandas as pd

from clearnets.analysis import multilevel_bootstrap
from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of, ordered, pick
from clearnets.analysis.samples import (
    ACCURACY,
    WHICH,
    Sample,
    bootstrap,
    by_seed,
    interval,
    own_scores,
    shuffled_scores,
    unless_accuracy,
)
from clearnets.analysis.sources import SCORERS
from clearnets.config import Config
from clearnets.families import FAMILIES

# The families whose clarity is the question; the others are controls.
# Those that share an untrained twin follow each other.
SUBJECTS = {
    row.name: row for twin in FAMILIES for row in FAMILIES.values() if row.untrained_twin == twin
}
# Beside balanced accuracy, of explained latents of all layers, not matched by activity.
COMPARED = ("precision", "recall")


def comparisons(families: Iterable[str]) -> list[tuple[str, str, str]]:
    """Return (kind, a, b) of every contrast a - b that these families allow, the primary ones
    first.

    Primary: the first native family of a selection against the coders of the same selection whose
    row says so. Secondary: any other coder that a row names, against the native family of its
    selection or else the first of all; further native families of a selection against its primary
    coders; and native families against the first of their selection, or the first of all. Where
    there is no native family, the first coders against each other kind of coders.
    Planted: a is clearer than b by construction.
    """
    present = set(families)
    rows = [row for row in FAMILIES.values() if row.name in present]
    subjects = [row for row in SUBJECTS.values() if row.name in present]
    natives = [row for row in subjects if row.kind == "native"]
    # The first one stands for its selection.
    first = {row.selection: row for row in reversed(natives)}
    pairs = []
    for row in rows if natives else ():
        partner = first.get(row.selection, natives[0])
        primary = row.contrast == "primary"
        if row.contrast:
            kind = "primary" if primary and partner.selection == row.selection else "secondary"
            pairs.append((kind, partner.name, row.name))
        if primary:
            others = [one for one in natives if one.selection == row.selection and one != partner]
            pairs += [("secondary", one.name, row.name) for one in others]
    for row in natives[1:]:
        other = first[row.selection] if row != first[row.selection] else natives[0]
        pairs.append(("secondary", other.name, row.name))
    if not natives:
        coders = [row.name for row in subjects if row.is_coder]
        pairs += [("secondary", coders[0], name) for name in coders[1:]]
    order = [row.name for row in natives or subjects]
    pairs.sort(key=lambda pair: (pair[0], order.index(pair[1])))
    pairs += [("untrained twin", row.name, row.untrained_twin) for row in subjects]
    pairs += [("untrained model", row.name, row.untrained_model_twin) for row in subjects]
    pairs += [("planted", row.clearer, row.name) for row in rows if row.clearer in present]
    controls = [row.name for row in rows if row.control_of_all]
    pairs += [(control, row.name, control) for control, row in product(controls, subjects)]
    return [(kind, a, b) for kind, a, b in pairs if b in present]


def contrast_tables(
    latents: pd.DataFrame,
    pair: pd.DataFrame,
    config: Config,
    scorers: Sequence[str] = SCORERS,
    measures: Sequence[str] = COMPARED,
    kinds: Sequence[str] = WHICH,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return differences between families, unmatched and matched, and the strata of firing rate.

    `matching` none, rate or activity is described in `clearnets.analysis.statistics`. `own
    shuffled` contrasts are paired by latent, and there where each was judged by all explanations of
    its layer. `unmatched_a` and `unmatched_b` are the shares of the latents that found no
    counterpart. `pair_matched` is false where the losses of the two models differ by more than the
    tolerance.
    Seeds, measures, kinds of latents and intervals as in `mean_table`. `equivalent`: the difference
    is shown to be smaller than `equivalence`, by the interval over latents, and
    `equivalent_layers`, `equivalent_seeds` by those. Pairs of latents that are matched by activity
    cross layers and seeds, so that there are no intervals over these. `role` is primary of the few
    rows that `clearnets.analysis.primary` tests under one correction, exploratory of all others.
    """
    rows: list[dict[str, Any]] = []
    strata: list[dict[str, Any]] = []
    settings = config.collate
    for seed, group in by_seed(latents, config).items():
        by_family = {family: pick(group, family=family) for family in ordered(config.families)}
        for names, contrast, above in _contrasts(
            by_family, seed, config, strata, scorers, measures, kinds
        ):
            counts = (contrast.used_a, contrast.used_b)
            difference = interval(contrast.difference, settings, *counts)
            enough = min(counts) >= settings.min_stratum
            upper = {level: above.get(level, stats.NOTHING) for level in multilevel_bootstrap.UPPER}
            rows.append(
                {
                    **names,
                    "role": role(names),
                    **difference.columns("difference"),
                    **multilevel_bootstrap.columns(upper, config, enough=enough),
                    "equivalence": settings.equivalence,
                    "equivalent": difference.equivalent(settings.equivalence),
                    **{
                        f"equivalent_{level}": enough
                        and upper[level].equivalent(settings.equivalence)
                        for level in multilevel_bootstrap.levels(config)
                    },
                    "n_a": contrast.used_a,
                    "n_b": contrast.used_b,
                    "unmatched_a": contrast.unmatched_a,
                    "unmatched_b": contrast.unmatched_b,
                    "pair_matched": _matched(pair, names),
                    "confidence": settings.confidence,
                }
            )
    columns = ["a", "b", "scorer", "low", "high", "n_a", "n_b", "mean_a", "mean_b", "used"]
    table = columns_of(pd.DataFrame(strata), columns)
    return pd.DataFrame(rows), table.rename(columns={"low": "rate_low", "high": "rate_high"})


def _matched(pair: pd.DataFrame, names: Mapping[str, str]) -> bool:
    """Return whether the models that the families of a contrast read are matched."""
    models = [FAMILIES[names[one]].model for one in ("a", "b") if names[one] in FAMILIES]
    of_seed = (pair["seed"].astype(str) == names["seed"]) | (names["seed"] == "all")
    return bool(pair.loc[pair["model"].isin(models) & of_seed, "matched"].all())


Found = tuple[dict[str, str], stats.Contrast, Mapping[str, stats.Estimate]]


def _contrasts(
    by_family: Mapping[str, pd.DataFrame],
    seed: str,
    config: Config,
    strata: list[dict[str, Any]],
    scorers: Sequence[str],
    measures: Sequence[str],
    kinds: Sequence[str],
) -> Iterator[Found]:
    """Yield every contrast with its names and its intervals over layers and seeds; append the
    strata of all seeds together to `strata`."""

    @cache
    def scores(family: str, *rest: str) -> Sample:
        return own_scores(by_family[family], *rest)

    for (kind, a, b), scorer in product(comparisons(config.families), scorers):
        pair = (kind, a, b, scorer)
        for layers in ("all", "matter"):
            for which in kinds:
                x, y = (scores(one, scorer, layers, which) for one in (a, b))
                yield _unmatched(x, y, _names(*pair, layers, which, "none", seed), config)
            x, y = (scores(one, scorer, layers, "explained") for one in (a, b))
            names = _names(*pair, layers, "explained", "rate", seed)
            found, bins = _by_rate(x, y, names, config)
            yield found
            if layers == "all" and seed == "all":
                strata += [{"a": a, "b": b, "scorer": scorer, **asdict(one)} for one in bins]
            names = _names(*pair, layers, "explained", "activity", seed)
            yield _by_activity(x, y, names, config)
        for measure in measures:
            x, y = (scores(one, scorer, "all", "explained", measure) for one in (a, b))
            rest = (*pair, "all", "explained")
            yield _unmatched(x, y, _names(*rest, "none", seed, measure), config)
            yield _by_rate(x, y, _names(*rest, "rate", seed, measure), config)[0]
    for family, scorer, layers in product(by_family, scorers, ("all", "matter")):
        if f"{scorer}-shuffled" not in by_family[family]:
            continue
        x = shuffled_scores(by_family[family], scorer, layers, minus=True)
        pair = ("own shuffled", family, "shuffled", scorer)
        names = _names(*pair, layers, "explained", "none", seed)
        estimate = stats.mean_estimate(x.value, x.strata, **_random(names, config))
        contrast = stats.Contrast(estimate, len(x), len(x), 0.0, 0.0)
        yield (
            names,
            contrast,
            _above(estimate.value, multilevel_bootstrap.mean_over, (x,), names, config),
        )


# What is tested of a pair of families, as `paper/registration.yaml` says; all else explores.
PRIMARY = {
    "kind": "primary",
    "layers": "matter",
    "latents": "live",
    "matching": "none",
    "seed": "all",
    "measure": ACCURACY,
}
KEYS = ("kind", "a", "b", "scorer", "layers", "latents", "matching", "seed", "measure")


def _names(*values: str) -> dict[str, str]:
    """Return the key columns of a contrast; of balanced accuracy where no measure is given."""
    return dict(zip(KEYS, (*values, ACCURACY)))


def role(names: Mapping[str, str]) -> str:
    """Return whether a contrast is one of the few that are tested under one correction."""
    tested = names["scorer"] in SCORERS
    primary = tested and all(names[key] == value for key, value in PRIMARY.items())
    return "primary" if primary else "exploratory"


def _random(names: Mapping[str, str], config: Config, *more: str) -> dict[str, Any]:
    *rest, measure = names.values()
    return bootstrap(config.collate, *rest, *unless_accuracy(measure), *more)


def _above(
    value: float,
    statistic: Callable[..., stats.Floats],
    samples: tuple[Sample, ...],
    names: Mapping[str, str],
    config: Config,
) -> dict[str, stats.Estimate]:
    random = _random(names, config, "levels")
    return multilevel_bootstrap.intervals(
        value, lambda drawn: statistic(drawn, *samples), samples, **random
    )


def _unmatched(x: Sample, y: Sample, names: dict[str, str], config: Config) -> Found:
    random = _random(names, config)
    contrast = stats.unmatched(x.value, x.strata, y.value, y.strata, **random)
    value = contrast.difference.value
    return (
        names,
        contrast,
        _above(value, multilevel_bootstrap.difference_over, (x, y), names, config),
    )


def _by_rate(
    x: Sample, y: Sample, names: dict[str, str], config: Config
) -> tuple[Found, list[stats.Stratum]]:
    enough = {"min_stratum": config.collate.min_stratum}
    random = _random(names, config)
    contrast, bins = stats.rate_matched(x.value, x.rate, y.value, y.rate, **enough, **random)
    statistic = partial(multilevel_bootstrap.rate_matched_over, **enough)
    above = _above(contrast.difference.value, statistic, (x, y), names, config)
    return (names, contrast, above), bins


def _by_activity(x: Sample, y: Sample, names: dict[str, str], config: Config) -> Found:
    random = _random(names, config)
    least = config.collate.min_stratum
    pairs = stats.activity_matched(
        x.value, x.windows, y.value, y.windows, min_pairs=least, **random
    )
    return names, pairs, {}
