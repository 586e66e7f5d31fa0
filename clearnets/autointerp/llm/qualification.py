"""Qualification of a language model as judge: tasks, verdicts, and whether a judge has passed.

For concepts of the corpus the judge is given the concept's name as the explanation, and windows of
`concept_fit` half of which hold the concept, with the prompts of the scorer that is tested. In
*detection* it tells which windows hold it; in *fuzzing* tokens are marked, the concept's or, in the
other windows, as many at random. A judge takes the test of each of these scorers that it is used
for, and must pass all of them: otherwise all its scores are a demonstration. The other scorers have
no test, because the right answer about a concept is unknown (intruder, without an explanation) or
not yes or no (simulation, surprisal): a judge that is used for them alone is tested by detection.

Its AUROC per concept is that of its probabilities, or of its answers where it gives none (then it
is the balanced accuracy). Missing answers are counted and left out, but a judge that leaves half
unanswered does not qualify.

Shape suffixes: R rows, S positions of a row, N windows, W chosen windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearnets import UserError
from clearnets.autointerp.llm.completions import identity
from clearnets.pipeline.artifacts import fingerprint, read_json

if TYPE_CHECKING:
    from clearnets.config import DelphiScorer, Qualify
    from clearnets.latents.examples import Windows

JUDGES = "judges.json"
TESTS = ("detection", "fuzzing")


def tests_of(judge: DelphiScorer) -> tuple[str, ...]:
    """Return the scorers that a judge is tested in."""
    return tuple(name for name in TESTS if name in judge.scorers) or TESTS[:1]


def judge_id(judge: DelphiScorer) -> str:
    """Return the name of a judge: a hash of its model and its prompts' settings."""
    return fingerprint({"client": identity(judge.client), **_prompt(judge)})


def is_qualified(judge: DelphiScorer, folder: Path) -> bool:
    """Return whether the judge has passed the test of each scorer that it is used for.

    Raises:
        UserError: it has not been tested.
    """
    found = read_json(folder / JUDGES).get(judge_id(judge), {}).get("tests", {})
    if any(name not in found for name in tests_of(judge)):
        raise UserError("this judge has not been tested; run `clearnets qualify` first")
    return all(found[name]["qualified"] for name in tests_of(judge))


@dataclass(frozen=True)
class Task:
    """One concept: windows that hold it, and as many that do not, with tokens marked for fuzzing.

    Attributes:
        marked_WL: tokens of the concept, a quarter of the window at most; and in the other windows
            as many counted ones at random.
    """

    concept: str
    window_W: np.ndarray
    holds_W: np.ndarray
    marked_WL: np.ndarray


def tasks(
    label_RS: np.ndarray, concepts: tuple[str, ...], windows: Windows, settings: Qualify, seed: int
) -> list[Task]:
    """Draw the concepts and windows of the test, without replacement.

    Raises:
        UserError: no concept has enough windows.
    """
    rng = np.random.default_rng(seed)
    label_RS = np.where(windows.counted_RS, label_RS, 0)
    label_NL, counted_NL = windows.cut(label_RS), windows.cut(windows.counted_RS)
    label_N = np.bitwise_or.reduce(label_NL, axis=1)
    drawn = []
    for bit in rng.permutation(len(concepts)).tolist():
        holds_N = (label_N >> np.uint64(bit)) & np.uint64(1) == 1
        with_W, without_W = np.flatnonzero(holds_N), np.flatnonzero(~holds_N)
        if min(len(with_W), len(without_W)) < settings.windows:
            continue
        window_W = np.concatenate(
            [np.sort(rng.permutation(pool)[: settings.windows]) for pool in (with_W, without_W)]
        )
        marked_WL = _marks(
            (label_NL[window_W] >> np.uint64(bit)) & np.uint64(1) == 1,
            counted_NL[window_W],
            np.random.default_rng([seed, bit]),
        )
        holds_W = np.arange(len(window_W)) < settings.windows
        drawn.append(Task(concepts[bit], window_W, holds_W, marked_WL))
        if len(drawn) == settings.concepts:
            break
    if not drawn:
        raise UserError(
            f"no concept is in {settings.windows} windows of concept_fit and absent in as many; "
            "lower qualify.windows or raise data.tokens.concept_fit"
        )
    return drawn


def _marks(concept_WL: np.ndarray, counted_WL: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the marks of a task; its first half of windows hold the concept."""
    half, most = len(concept_WL) // 2, max(concept_WL.shape[1] // 4, 1)
    number_W = np.minimum(concept_WL[:half].sum(axis=1), most)
    number_W = np.concatenate([number_W, rng.permutation(number_W)])
    free_WL = np.concatenate([concept_WL[:half], counted_WL[half:]])
    key_WL = np.where(free_WL, rng.random(free_WL.shape), np.inf)
    rank_WL = key_WL.argsort(axis=1).argsort(axis=1)
    return (rank_WL < number_W[:, None]) & free_WL


def record_of(
    judge: DelphiScorer, settings: Qualify, by_test: Mapping[str, dict[str, dict[str, Any]]]
) -> dict[str, Any]:
    """Return the record of a judge from its scores by test and concept (see `count_answers`)."""
    return {
        "judge": {"client": identity(judge.client), "prompt": _prompt(judge)},
        "tests": {name: verdict(settings, found) for name, found in by_test.items()},
    }


def verdict(settings: Qualify, by_concept: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the result of one test. Where no concept is known, no judge qualifies."""
    rows = {name: {**scores, "auroc": area_of(scores)} for name, scores in by_concept.items()}
    areas = [row["auroc"] for row in rows.values() if row["auroc"] is not None]
    missing = sum(row["missing_positives"] + row["missing_negatives"] for row in rows.values())
    asked = 2 * settings.windows * len(rows)
    mean = round(sum(areas) / len(areas), 6) if areas else None
    return {
        "auroc": mean,
        "answered": round(1 - missing / asked, 6) if asked else 0.0,
        "qualified": mean is not None and mean >= settings.min_auroc and 2 * missing < asked,
        "concepts": rows,
    }


def _prompt(judge: DelphiScorer) -> dict[str, Any]:
    """Return the settings of a judge's prompts, without its scorers and controls."""
    others = {"client", "kind", "scorers", "shuffled", "reasked"}
    return judge.model_dump(mode="json", exclude=others)


def area_of(scores: dict[str, Any]) -> float | None:
    """Return the AUROC of the probabilities, or of the answers; None if a class has no answers."""
    if scores["auroc"] is not None:
        return scores["auroc"]
    positives, negatives = scores["tp"] + scores["fn"], scores["tn"] + scores["fp"]
    if not positives or not negatives:
        return None
    return round((scores["tp"] / positives + scores["tn"] / negatives) / 2, 6)
