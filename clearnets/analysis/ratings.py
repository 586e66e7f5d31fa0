"""Tables of human ratings: shares of answers, and their agreement with automatic scores.

| table | one row per |
|---|---|
| ratings | rater, latent, question: the answer, and whether the explanation is still that one |
| ratings_families | rater or all, family, question: share of yes among yes and no |
| ratings_agreement | rater or all, question, scorer: AUROC of yes against no, rank correlation |

Shares have Wilson's interval. In the rank correlation unsure lies between no and yes. Intervals of
agreement are percentile bootstraps over latents, which keep the answers of several raters on one
latent together; none is given from fewer than `collate.min_stratum` latents. Answers about an
explanation that has changed since are outdated and enter no number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest, rankdata

from clearnets.analysis import statistics as stats
from clearnets.analysis.frames import columns_of, ordered, pick
from clearnets.analysis.llm_judge_rows import MAIN_MEASURE
from clearnets.analysis.rating_files import ANSWERS, KEYS, QUESTIONS
from clearnets.analysis.sources import EMBEDDING, SCORERS, Sources
from clearnets.autointerp.ranking import area
from clearnets.config import Config
from clearnets.pipeline.runtime import seed_for

# All raters together; no rater can be called so, for a file's name has no parentheses.
ALL = "(all)"


def tables(sources: Sources, latents: pd.DataFrame, config: Config) -> dict[str, pd.DataFrame]:
    """Return the tables of ratings by name; none where nobody has rated."""
    rated = sources.ratings
    if rated is None:
        return {}
    columns = ["rater", *KEYS, "question", "answer", "current"]
    scores = _scores(sources, latents)
    groups = list(_groups(rated))
    return {
        "ratings": columns_of(rated, columns),
        "ratings_families": pd.DataFrame(
            [row for rater, part in groups for row in _families(rater, part, config)]
        ),
        "ratings_agreement": pd.DataFrame(
            [row for rater, part in groups for row in _agreement(rater, part, scores, config)]
        ),
    }


def _groups(rated: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each rater, and all together where there are several."""
    raters = list(dict.fromkeys(rated["rater"]))
    for rater in raters:
        yield rater, pick(rated, rater=rater)
    if len(raters) > 1:
        yield ALL, rated


def _scores(sources: Sources, latents: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return by scorer a frame of KEYS and `score`, without latents that have no score."""
    found = {scorer: (latents, scorer) for scorer in SCORERS}
    found[EMBEDDING] = (sources.similarity, EMBEDDING)
    scores = {
        name: columns_of(frame, [*KEYS, column]).rename(columns={column: "score"})
        for name, (frame, column) in found.items()
    }
    if sources.llm_scores is not None:
        own = pick(sources.llm_scores, kind="own")
        for scorer in dict.fromkeys(own["scorer"]):
            measure = MAIN_MEASURE.get(scorer, "accuracy")
            part = columns_of(pick(own, scorer=scorer), [*KEYS, measure])
            scores[f"judge-{scorer}"] = part.rename(columns={measure: "score"})
    # Accuracies that are equal may differ in their last bit, and would not be ties.
    scored = {
        name: frame.dropna(subset="score").round({"score": 9}) for name, frame in scores.items()
    }
    return {name: frame for name, frame in scored.items() if len(frame)}


def _families(rater: str, rated: pd.DataFrame, config: Config) -> Iterator[dict[str, Any]]:
    for family in ordered(config.families):
        for question in QUESTIONS:
            part = pick(rated, family=family, question=question)
            row = {"rater": rater, "family": family, "question": question, **_counts(part)}
            sure = row["yes"] + row["no"]
            if sure:
                test = binomtest(row["yes"], sure)
                low, high = test.proportion_ci(config.collate.confidence, method="wilson")
                yield {**row, "share": row["yes"] / sure, "low": low, "high": high}
            elif row["unsure"] or row["outdated"]:
                yield {**row, "share": np.nan, "low": np.nan, "high": np.nan}


def _counts(part: pd.DataFrame) -> dict[str, int]:
    current = pick(part, current=True)
    counts = {name: len(pick(current, answer=name)) for name in ("yes", "no", "unsure")}
    return {**counts, "outdated": len(part) - len(current)}


def _agreement(
    rater: str, rated: pd.DataFrame, scores: Mapping[str, pd.DataFrame], config: Config
) -> Iterator[dict[str, Any]]:
    for question in QUESTIONS:
        asked = pick(rated, question=question)
        current = pick(asked, current=True).assign(worth=lambda frame: frame["answer"].map(ANSWERS))
        for scorer, frame in scores.items():
            both = current.merge(frame, on=KEYS)
            latent_N = both.groupby(KEYS, sort=False).ngroup().to_numpy(np.int64)
            score_N, worth_N = (both[name].to_numpy(np.float64) for name in ("score", "worth"))
            names = {"rater": rater, "question": question, "scorer": scorer}
            row: dict[str, Any] = {**names, **_counts(asked), "latents": len(set(latent_N))}
            for measure, of in (("auroc", auroc), ("spearman", spearman)):
                seed = seed_for(config.collate.seed, "ratings", *names.values(), measure)
                found = estimate(of, score_N, worth_N, latent_N, config, seed)
                row |= found.columns(measure, f"{measure}_")
            yield row


def auroc(score_N: np.ndarray, worth_N: np.ndarray) -> float:
    """Return how often a latent with yes has a higher score than one with no, ties counting half,
    without the unsure. NaN where either is missing."""
    sure_N = worth_N != ANSWERS["unsure"]
    found = area(score_N[sure_N], worth_N[sure_N] == ANSWERS["yes"]) if sure_N.any() else None
    return float("nan") if found is None else found


def spearman(score_N: np.ndarray, worth_N: np.ndarray) -> float:
    """Return the rank correlation; NaN where one side is constant."""
    if len(score_N) < 2:
        return float("nan")
    ranks = np.stack([rankdata(score_N), rankdata(worth_N)])
    if (np.ptp(ranks, axis=1) == 0).any():
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def estimate(
    of: Callable[[np.ndarray, np.ndarray], float],
    score_N: np.ndarray,
    worth_N: np.ndarray,
    latent_N: np.ndarray,
    config: Config,
    seed: int,
) -> stats.Estimate:
    """Return a measure with its bootstrap interval over latents; answers on one latent stay
    together."""
    value = of(score_N, worth_N)
    count = len(set(latent_N.tolist()))
    if count < config.collate.min_stratum or not np.isfinite(value):
        return stats.Estimate(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    places = [np.flatnonzero(latent_N == latent) for latent in range(count)]
    draws = []
    for _ in range(config.collate.resamples):
        at = np.concatenate([places[latent] for latent in rng.integers(0, count, count)])
        draws.append(of(score_N[at], worth_N[at]))
    draws_R = np.array(draws)
    # A resample without a yes or a no says nothing.
    return stats.percentile_interval(
        value, draws_R[np.isfinite(draws_R)], config.collate.confidence
    )
