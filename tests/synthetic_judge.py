"""Adds to made-up results what a language model of known accuracy would have judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import synthetic_results
from synthetic_results import TRUTH

from clearnets.autointerp.records import PROBABILITY_BINS, TRANSCRIPT_SAMPLE
from clearnets.config import Config
from clearnets.pipeline import paths
from clearnets.pipeline.artifacts import read_jsonl, write_json
from clearnets.pipeline.runtime import seed_for

WINDOWS = 50
MISSING = 0.04
# Share of answers that come out otherwise when the same windows are asked about again.
FLIPPED = 0.1
REASKED = 15
SCORERS = ("detection", "fuzzing", "intruder")


def small(*scorers: str, **over: Any) -> Config:
    """The small experiment, where a language model judges beside the rules."""
    client = {"kind": "openai", "model": "judge"}
    judge = {"kind": "delphi", "scorers": list(scorers or SCORERS), "client": client}
    return synthetic_results.small(
        score={"scorers": [{"kind": "rules"}, judge | {"log_prob": True}]}, **over
    )


def few() -> Config:
    """`small` with two families and one task of the observatory."""
    return small(families=["native", "transcoder"], generalize={"tasks": ["grid"]})


def write(config: Config, *, demonstration: bool = False) -> None:
    """The synthetic results, and in each unit of scores what a language model judged."""
    synthetic_results.write(config)
    leave_samples(config)
    for family in config.families:
        for seed in config.seeds:
            for point in config.hookpoints(family):
                _judge(config, family, seed, point, demonstration)


def _judge(config: Config, family, seed: int, point: str, demonstration: bool) -> None:
    rng = np.random.default_rng(seed_for(0, "judge", family, seed, point))
    folder = paths.score(family, seed, point)
    assert config.score.judge is not None
    scorers = config.score.judge.scorers
    histogram = {
        name: {kind: [0] * PROBABILITY_BINS for kind in ("positives", "negatives")}
        for name in scorers
        if name in ("detection", "fuzzing")
    }
    lines = []
    records = read_jsonl(folder / "scores.jsonl")
    there = [record["latent"] for record in records if record["status"] == "explained"]
    # How well others' explanations happen to fit any latent.
    luck = dict(zip(there, rng.normal(0, 0.02, len(there))))
    for place, record in enumerate(records):
        line = {key: record[key] for key in ("latent", "status", "rate", "windows")}
        line["demonstration"] = demonstration
        skill = TRUTH[family][0] + rng.normal(0, 0.08)
        for name in scorers:
            kinds = ("", "_shuffled", "_redrawn", *(["_reordered"] * (name in histogram)))
            line |= {f"{name}{kind}": None for kind in kinds}
            if record["status"] == "explained" and name in histogram:
                giver = int(rng.choice([one for one in there if one != record["latent"]]))
                other = (giver, 0.5 + luck[giver])
                line |= _classified(rng, name, skill, place < REASKED, histogram[name], other)
            elif record["status"] == "explained":
                right = int(rng.binomial(24, skill - 0.2))
                line[name] = {"right": right, "wrong": 24 - right, "missing": 1}
        line.pop("intruder_shuffled", None)
        lines.append(line)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "judged.jsonl").write_text(text)
    write_json(folder / "probabilities.json", histogram)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "files": {}}))


def leave_samples(config: Config) -> None:
    """Units with the sample of a transcript each, or such a sample in the unit that is there."""
    synthetic_results._unit("qualify", paths.qualify(), _qualified)
    for family in config.families:
        for seed in config.seeds:
            for point in config.hookpoints(family):
                _exchanges(paths.score(family, seed, point))
                if config.explain.explainer.kind == "delphi":
                    unit = paths.explain(family, seed, point)
                    synthetic_results._unit("explain", unit, _exchanges)


def _qualified(folder: Path) -> None:
    _exchanges(folder)
    tests = {
        "detection": {"auroc": 0.912345, "answered": 0.95, "qualified": True, "concepts": {}},
        "fuzzing": {"auroc": None, "answered": 0.0, "qualified": False, "concepts": {}},
    }
    write_json(folder / "judges.json", {"id": {"judge": {}, "tests": tests}})


def _exchanges(folder: Path) -> None:
    """Five exchanges, of which the second has no answer."""
    lines = []
    for number in range(5):
        message = {"role": "user", "content": f"is it {number}?"}
        said = {"error": "status 500"} if number == 1 else {"reply": {"text": "é", "logprobs": []}}
        entry = {"key": "k", "model": {}, "settings": {"seed": number}, "messages": [message]}
        lines.append(json.dumps(entry | said) + "\n")
    (folder / TRANSCRIPT_SAMPLE).write_text("".join(lines))


def _classified(
    rng, name: str, skill: float, again: bool, histogram, other: tuple[int, float]
) -> dict[str, Any]:
    """`other`: whose explanation the control is, and how good it is."""
    truth_W = np.arange(2 * WINDOWS) < WINDOWS
    first_W, probability_W = _answers(rng, truth_W, skill)
    for kind, chosen_W in (("positives", truth_W), ("negatives", ~truth_W)):
        there_W = chosen_W & (first_W >= 0)
        counts, _ = np.histogram(probability_W[there_W], np.linspace(0, 1, PROBABILITY_BINS + 1))
        histogram[kind] = [a + int(b) for a, b in zip(histogram[kind], counts)]
    found: dict[str, Any] = {name: _counts(truth_W, first_W, probability_W)}
    giver, luck = other
    counts = _counts(truth_W, *_answers(rng, truth_W, luck))
    found[f"{name}_shuffled"] = [{"explanation_of": giver, **counts}]
    if again:
        second_W = np.where(rng.random(len(truth_W)) < FLIPPED, 1 - first_W, first_W)
        second_W[first_W < 0] = -1
        both_W = (first_W >= 0) & (second_W >= 0)
        alike = {"both": int(both_W.sum()), "same": int((first_W == second_W)[both_W].sum())}
        found[f"{name}_reordered"] = _counts(truth_W, second_W, probability_W) | alike
        found[f"{name}_redrawn"] = _counts(truth_W, *_answers(rng, truth_W, skill))
    return found


def _answers(rng, truth_W: np.ndarray, skill: float) -> tuple[np.ndarray, np.ndarray]:
    """Yes 1, no 0, missing -1, with probabilities that agree with them."""
    skill = float(np.clip(skill, 0.02, 0.98))
    right_W = rng.random(len(truth_W)) < skill
    yes_W = np.where(right_W, truth_W, ~truth_W)
    sure_W = rng.beta(4, 1.5, len(truth_W)) / 2
    probability_W = np.where(yes_W, 0.5 + sure_W, 0.5 - sure_W)
    missing_W = rng.random(len(truth_W)) < MISSING
    return np.where(missing_W, -1, yes_W.astype(int)), probability_W


def _counts(truth_W: np.ndarray, said_W: np.ndarray, probability_W: np.ndarray) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score

    there_W = said_W >= 0
    return {
        "tp": int((truth_W & (said_W == 1)).sum()),
        "fp": int((~truth_W & (said_W == 1)).sum()),
        "tn": int((~truth_W & (said_W == 0)).sum()),
        "fn": int((truth_W & (said_W == 0)).sum()),
        "missing_positives": int((truth_W & ~there_W).sum()),
        "missing_negatives": int((~truth_W & ~there_W).sum()),
        "auroc": round(float(roc_auc_score(truth_W[there_W], probability_W[there_W])), 6),
    }
