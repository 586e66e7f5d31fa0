"""Tables of concept recovery: which family's latents recover how many known concepts.

A family is compared with its null, random directions of the space that its latents read, and
with the other families, always at an equal number of candidate latents. What varies are the draws
of candidates: the ranges given are those of the central share of the draws. They say how much
hangs on which latents a family happens to have, and nothing about other models or texts.

| table | one row per |
|---|---|
| concepts | seed, family, concept: the best latent, the best set of tokens |
| concept_latents | family, kind of concept, bin of F1: latents, each with its best concept |
| concept_summary | seed or all, family, kind of concept |
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from clearnets.analysis.frames import columns_of, pick
from clearnets.config import Config
from clearnets.families import DIRECTIONS, FAMILIES

KINDS = ("lexical", "contextual")
BOTH = "all"
# Width of the bins of F1 in `concept_latents`.
BIN = 0.05
CONCEPT_COLUMNS = (
    *("seed", "family", "concept", "kind", "positives_test", "token_set", "token_set_f1"),
    *("layer", "latent", "threshold", "f1_fit", "f1", "mcc_fit", "mcc"),
    *("drawn_f1", "drawn_recovered"),
    *("latents_recovering", "layers_recovering", "latents_recovering_in_layer"),
    *("main_latents", "main_f1", "absorbed"),
)
SUMMARY_COLUMNS = (
    *("seed", "family", "null", "kind", "concepts", "candidates", "draws"),
    *(f"{name}{end}" for name in ("recovered", "f1") for end in ("", "_low", "_high")),
    *(f"null_{name}{end}" for name in ("recovered", "f1") for end in ("", "_low", "_high")),
    *("f1_above_null", "f1_above_null_low", "f1_above_null_high"),
    *("recovered_by_all", "f1_by_all", "mcc_by_all", "token_set_f1", "above_token_set"),
    *("split", "absorbed", "redundancy", "redundancy_in_layer"),
    *("latents", "latents_recovering"),
    *("rules", "named", "as_well", "named_by_others", "latent_f1", "rule_f1"),
    *("recovered_from", "named_from", "tolerance", "confidence"),
)


def tables(found: Mapping[str, pd.DataFrame], config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables of concepts by name; without rows where the corpus has no labels."""
    return {
        "concepts": _sort(columns_of(found["concepts"], CONCEPT_COLUMNS)),
        "concept_latents": histogram(found["latents"], config),
        "concept_summary": summary(found, config),
    }


def histogram(latents: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return how many latents have which F1 for their best concept, over all seeds.

    A latent that is never active has no concept; its kind is empty and its bin the lowest.
    """
    rows = []
    edges = np.round(np.arange(0, 1 + BIN / 2, BIN), 10)
    for family in _ordered(latents["family"]):
        own = pick(latents, family=family)
        for kind in (*KINDS, None):
            of_kind = own["kind"].isna() if kind is None else own["kind"] == kind
            values = own.loc[of_kind, "f1"].to_numpy(np.float64)
            counts, _ = np.histogram(values, bins=edges)
            for low, count in zip(edges[:-1], counts):
                if count:
                    row = {"family": family, "kind": kind, "f1_low": low, "latents": int(count)}
                    rows.append(row | {"share": count / len(own)})
    return columns_of(pd.DataFrame(rows), ("family", "kind", "f1_low", "latents", "share"))


def summary(found: Mapping[str, pd.DataFrame], config: Config) -> pd.DataFrame:
    """Return one row per family and kind of concept: what its latents recover, and what its null
    does.

    `recovered`, `f1`: concepts recovered, and mean F1 over concepts, by the best of `candidates`
    latents; the mean over draws with their central range. `f1_above_null`: the difference to the
    null's, each side drawn on its own. `_by_all`: by the best of all latents. `above_token_set`:
    concepts that the best of all latents recovers with a higher F1 than the best set of tokens.
    `split`, `absorbed`: concepts; see `clearnets.latents.concepts`. `redundancy`: latents that
    recover a concept, the mean over recovered concepts. `latents_recovering`: share of latents
    that recover a concept. `rules` to `rule_f1`: over explained latents whose F1 for their concept
    is at least `named_from`; see `clearnets.autointerp.rules.concept_naming`.
    """
    groups: list[tuple[str, list[int]]] = [("all", list(config.seeds))]
    if len(config.seeds) > 1:
        groups += [(str(seed), [seed]) for seed in config.seeds]
    rows = [
        _summary_row(found, config, name, seeds, family, kind)
        for name, seeds in groups
        for family in _ordered(found["concepts"]["family"])
        for kind in (BOTH, *KINDS)
    ]
    return columns_of(pd.DataFrame(rows), SUMMARY_COLUMNS)


def _summary_row(
    found: Mapping[str, pd.DataFrame],
    config: Config,
    name: str,
    seeds: list[int],
    family: str,
    kind: str,
) -> dict[str, Any]:
    settings = config.concepts
    kinds = KINDS if kind == BOTH else (kind,)
    null = FAMILIES[family].null if family in FAMILIES else None

    def rows_of(table: str, of: str | None = family) -> pd.DataFrame:
        rows = found[table]
        chosen = (rows["family"] == of) & rows["seed"].isin(seeds) & rows["kind"].isin(kinds)
        return cast(pd.DataFrame, rows[chosen])

    concepts = rows_of("concepts")
    draws, null_draws = _joint(rows_of("draws")), _joint(rows_of("draws", null))
    every: Any = pick(found["latents"], family=family)
    every = every[every["seed"].isin(seeds)]
    recovering = every["kind"].isin(kinds) & (every["f1"] >= settings.recovered)
    return {
        "seed": name,
        "family": family,
        "null": null if len(null_draws) else None,
        "kind": kind,
        "concepts": concepts["concept"].nunique(),
        "candidates": settings.candidates,
        "draws": len(draws),
        **_over_draws(draws, null_draws, config),
        **_by_all_latents(concepts, config, len(seeds)),
        "latents": len(every) / len(seeds),
        "latents_recovering": recovering.mean(),
        **_over_rules(rows_of("rules"), settings.named_from),
        "recovered_from": settings.recovered,
        "named_from": settings.named_from,
        "tolerance": settings.tolerance,
        "confidence": config.collate.confidence,
    }


def _over_draws(draws: pd.DataFrame, null: pd.DataFrame, config: Config) -> dict[str, Any]:
    """Return what drawn candidates recover, those of the null, and the difference of both."""
    tail = (1 - config.collate.confidence) / 2
    row: dict[str, float] = {}
    for prefix, table in (("", draws), ("null_", null)):
        for target, column in (("recovered", "recovered"), ("f1", "mean_f1")):
            row |= _range(f"{prefix}{target}", table[column].to_numpy(np.float64), tail)
    # Without a null there is no draw of it, and no difference.
    paired = min(len(draws), len(null))
    above = draws["mean_f1"].to_numpy()[:paired] - null["mean_f1"].to_numpy()[:paired]
    return row | _range("f1_above_null", above, tail)


def _by_all_latents(concepts: pd.DataFrame, config: Config, seeds: int) -> dict[str, Any]:
    """Return what the best of all latents recovers; counts are means over `seeds` seeds."""
    settings = config.concepts
    recovered = concepts["f1"] >= settings.recovered
    per_seed = 1 / seeds
    return {
        "recovered_by_all": recovered.sum() * per_seed,
        "f1_by_all": concepts["f1"].mean(),
        "mcc_by_all": concepts["mcc"].mean(),
        "token_set_f1": concepts["token_set_f1"].mean(),
        "above_token_set": (concepts["f1"] > concepts["token_set_f1"]).sum() * per_seed,
        "split": (concepts["main_latents"] > 1).sum() * per_seed,
        "absorbed": (concepts["absorbed"] >= settings.absorbed).sum() * per_seed,
        "redundancy": concepts.loc[recovered, "latents_recovering"].mean(),
        "redundancy_in_layer": concepts.loc[recovered, "latents_recovering_in_layer"].mean(),
    }


def _over_rules(rules: pd.DataFrame, named_from: float) -> dict[str, Any]:
    """Return how well explanations name concepts, over latents that recover one clearly."""
    clear = rules[rules["f1"] >= named_from]
    columns = {name: name for name in ("named", "as_well", "named_by_others", "rule_f1")}
    means = {
        name: clear[column].mean() if len(clear) else math.nan
        for name, column in (columns | {"latent_f1": "f1"}).items()
    }
    return {"rules": len(clear), **means}


def _joint(draws: pd.DataFrame) -> pd.DataFrame:
    """Return each draw with the concepts of all its kinds together."""
    columns = draws.assign(f1=draws["mean_f1"] * draws["concepts"])
    keys = ["seed", "draw"]
    sums: Any = columns.groupby(keys, as_index=False)[["concepts", "recovered", "f1"]].sum()
    return sums.assign(mean_f1=sums["f1"] / sums["concepts"])


def _range(name: str, values: np.ndarray, tail: float) -> dict[str, Any]:
    """Return mean and central range of draws; nan where there are none."""
    if not len(values):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    low, high = np.quantile(values, [tail, 1 - tail])
    return {name: values.mean(), f"{name}_low": low, f"{name}_high": high}


ORDER = (*FAMILIES, *DIRECTIONS)


def _ordered(families: Iterable[str]) -> list[str]:
    present = set(families)
    return [family for family in ORDER if family in present]


def _sort(table: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by family and seed; concepts stay in the corpus's order."""
    ranks = [ORDER.index(family) for family in table["family"]]
    order = table.assign(rank=ranks).sort_values(["rank", "seed"], kind="stable")
    return order.drop(columns="rank").reset_index(drop=True)
