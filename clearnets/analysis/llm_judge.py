"""Tables of scores by a language model, separate for judges that have qualified and that have not.

| table | one row per |
|---|---|
| judged | latent, scorer: its scores, how many answers there are and are missing |
| judged_means | family, scorer, explanation, measure: the mean over latents with its interval |
| judged_contrasts | as `contrasts`, of latents that were judged |
| judged_noise | family or all, scorer, way of asking again: how far apart two scores lie |
| judge | test: how well the judge distinguished known concepts, and whether that qualifies it |
| judged_probabilities | family, scorer, bin of probability: positives and negatives |

Those of a judge that has not qualified are called `demonstration` in place of `judged`: no figure
and no other table shows them.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from clearnets.analysis import statistics as stats
from clearnets.analysis.contrasts import contrast_tables
from clearnets.analysis.frames import columns_of, ordered, pick, sort, stacked
from clearnets.analysis.llm_judge_rows import AGAIN, GIVER, MAIN_MEASURE, MEASURES
from clearnets.analysis.samples import ACCURACY, CHANCE, bootstrap, interval
from clearnets.analysis.sources import Sources
from clearnets.autointerp.records import PROBABILITY_BINS
from clearnets.config import Collate, Config

KEYS = ["family", "seed", "layer", "latent"]
# What the tables of a judge are called that has qualified, and of one that has not.
JUDGED, DEMONSTRATION = "judged", "demonstration"
# A judge that knows nothing gets this much of these measures.
AT_CHANCE = {"accuracy": CHANCE, "auroc": CHANCE, "correlation": 0.0}


def tables(
    sources: Sources, latents: pd.DataFrame, pair: pd.DataFrame, config: Config
) -> dict[str, pd.DataFrame]:
    """Return `judged ...` or `demonstration ...` where a language model judges; only tables with
    rows."""
    if sources.llm_scores is None or sources.probabilities is None:
        return {}
    tables = {}
    for name, which in ((JUDGED, False), (DEMONSTRATION, True)):
        own = pick(sources.llm_scores, demonstration=which)
        if len(own):
            probabilities = pick(sources.probabilities, demonstration=which)
            found = judge_tables(own, probabilities, config.collate)
            found["_contrasts"] = contrast_table(found[""], latents, pair, config)
            tables |= {name + suffix: table for suffix, table in found.items() if len(table)}
    if sources.qualification is not None:
        tables["judge"] = sources.qualification
    return tables


def judge_tables(
    judged: pd.DataFrame, probabilities: pd.DataFrame, settings: Collate
) -> dict[str, pd.DataFrame]:
    """Return the tables of one judge by suffix.

    Args:
        judged: rows of `clearnets.analysis.llm_judge_rows` with family, seed and layer.
        probabilities: family, scorer, bin, positives, negatives; any number of rows for each bin.
    """
    tables = {
        "": latent_table(judged),
        "_means": mean_table(judged, settings),
        "_noise": noise_table(judged),
        "_probabilities": probability_table(probabilities),
    }
    return {suffix: table for suffix, table in tables.items() if len(table)}


def latent_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Return every latent's scores with its own explanation."""
    table = sort(pick(judged, kind="own"), KEYS)
    return table.drop(columns=["demonstration", "kind", GIVER, *AGAIN])


def mean_table(judged: pd.DataFrame, settings: Collate) -> pd.DataFrame:
    """Return means over judged latents with bootstrap intervals over latents within (seed, layer).

    `explanation` shuffled: of other latents of the layer; a latent's score is the mean over those
    it was judged by, the interval knows that latents share these (`stats.sampled_pairs`), and
    `at_chance` says that it lies within `margin` of chance. No interval is given from fewer than
    `min_stratum` latents. `missing` is the share of all answers
    asked for that are missing; they have no part in the scores.
    """
    rows = []
    cases = product(ordered(judged["family"]), judged["scorer"].unique(), ("own", "shuffled"))
    for family, scorer, kind in cases:
        found = pick(judged, family=family, scorer=scorer, kind=kind)
        answered, missing = found["answered"].sum(), found["missing"].sum()
        for measure in MEASURES:
            there = found.dropna(subset=[measure])
            if there.empty:
                continue
            count = len(there.drop_duplicates(KEYS))
            value, strata = _values(there, measure)
            random = bootstrap(settings, "judged", family, scorer, kind, measure)
            estimate = stats.mean_estimate(value, strata, **random)
            estimate = interval(estimate, settings, count)
            chance = AT_CHANCE.get(measure) if scorer != "intruder" else None
            rows.append(
                {
                    "family": family,
                    "scorer": scorer,
                    "explanation": kind,
                    "measure": measure,
                    "n": count,
                    **estimate.columns("mean"),
                    "at_chance": chance is not None and estimate.within(chance, settings.margin),
                    "missing": missing / (answered + missing),
                    "confidence": settings.confidence,
                }
            )
    return pd.DataFrame(rows)


def _values(scores: pd.DataFrame, measure: str) -> tuple[stats.Floats, stats.Ints]:
    """Return values whose mean and spread estimate the mean score, and their strata (seed,
    layer)."""
    value = scores[measure].to_numpy(np.float64)
    seeds, layers, judged = (scores[name].to_numpy(np.int64) for name in KEYS[1:])
    strata = stats.strata_ids(seeds, layers)
    given = scores[GIVER].to_numpy(np.float64)
    if np.isnan(given).all():
        return value, strata
    latents = np.concatenate([judged, given.astype(np.int64)])
    first, other = stats.strata_ids(np.tile(strata, 2), latents).reshape(2, -1)
    return stats.sampled_pairs(value, first, other, strata)


def contrast_table(
    judged: pd.DataFrame, latents: pd.DataFrame, pair: pd.DataFrame, config: Config
) -> pd.DataFrame:
    """Return differences between families, as in `contrasts`, of the latents that have a score.
    None is adjusted for coverage: a missing answer is neither right nor wrong.

    Args:
        judged: scores with own explanations.
        latents: how active each latent is, and whether its layer matters.
    """
    tables = []
    active = latents[[*KEYS, "rate", "windows", "matters"]]
    for scorer in judged["scorer"].unique():
        main = MAIN_MEASURE.get(scorer, "accuracy")
        own: Any = pick(judged, scorer=scorer).dropna(subset=[main]).merge(active, on=KEYS)
        rest = [m for m in MEASURES if m != main and own[m].notna().any()]
        names = {main: scorer, **{measure: f"{scorer}-{measure}" for measure in rest}}
        own = own.drop(columns="scorer").rename(columns=names)
        table: Any = contrast_tables(own, pair, config, (scorer,), rest, ("explained",))[0]
        if len(table):
            there = own["family"].unique()
            table = table[table["a"].isin(there) & table["b"].isin(there)]
            tables.append(table.assign(measure=table["measure"].replace(ACCURACY, main)))
    return stacked(*tables) if tables else pd.DataFrame()


def noise_table(judged: pd.DataFrame) -> pd.DataFrame:
    """Return how far apart two scores of the same latent lie: smaller differences between latents
    mean nothing.

    `asked` reordered: about the same windows in another order and with another seed; redrawn: about
    other windows. `agreement` is the share of windows that were answered alike, of those that were
    answered both times. `sd` is the standard deviation of one score about the latent's own, that
    two scores imply: the root of half their mean squared difference. `sd_latents` is that of the
    first scores of the same latents, and `reliability` what part of its square is not noise (below
    zero where noise is all there is).
    """
    rows = []
    for scorer in judged["scorer"].unique():
        measure = MAIN_MEASURE.get(scorer, "accuracy")
        own = pick(judged, scorer=scorer, kind="own").set_index(KEYS)[measure]
        for asked in ("reordered", "redrawn"):
            again = pick(judged, scorer=scorer, kind=asked).set_index(KEYS)
            pairs = again.assign(first=own.reindex(again.index).astype(float))
            pairs = pairs.assign(second=pairs[measure].astype(float)).reset_index()
            for family in (*ordered(pairs["family"]), "all"):
                chosen = pairs if family == "all" else pick(pairs, family=family)
                key = {"family": family, "scorer": scorer, "asked": asked, "measure": measure}
                if row := _noise(chosen.dropna(subset=["first", "second"])):
                    rows.append(key | row)
    return pd.DataFrame(rows)


def _noise(pairs: pd.DataFrame) -> dict[str, Any] | None:
    if pairs.empty:
        return None
    first, second = pairs["first"].to_numpy(float), pairs["second"].to_numpy(float)
    noise = float(np.mean((second - first) ** 2)) / 2
    spread = float(np.var(first, ddof=1)) if len(first) > 1 else math.nan
    both, same = (pairs[name].to_numpy(float).sum() for name in AGAIN)
    return {
        "n": len(pairs),
        "agreement": float(same / both) if both > 0 else math.nan,
        "difference": float(np.mean(second - first)),
        "sd": math.sqrt(noise),
        "sd_latents": math.sqrt(spread) if spread >= 0 else math.nan,
        "reliability": 1 - noise / spread if spread > 0 else math.nan,
    }


def probability_table(probabilities: pd.DataFrame) -> pd.DataFrame:
    """Return how many active windows (or marked ones of the latent), and how many others, were
    given which probability; empty bins have a row, too."""
    rows, edges = [], np.linspace(0, 1, PROBABILITY_BINS + 1)
    cases = product(ordered(probabilities["family"]), probabilities["scorer"].unique())
    for family, scorer in cases:
        found = pick(probabilities, family=family, scorer=scorer)
        counts = {
            kind: np.bincount(found["bin"], found[kind], PROBABILITY_BINS).astype(int)
            for kind in ("positives", "negatives")
        }
        table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})
        if len(found):
            rows.append(table.assign(family=family, scorer=scorer))
    columns = ["family", "scorer", "low", "high", "positives", "negatives"]
    return columns_of(stacked(*rows) if rows else pd.DataFrame(), columns)
